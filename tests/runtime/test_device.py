"""Names of devices: what is there is taken, what is not is refused with what is."""

from __future__ import annotations

import pytest
import torch

from tinymem.errors import UserError
from tinymem.runtime.device import resolve_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_are_there() -> None:
    assert [resolve_device(name) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:99", "cuda:x", "cuda:", "cuda:-1", "cuda0", "cudas"])
def test_gpus_that_are_not(name: str) -> None:
    with pytest.raises(UserError, match=rf"expected --device .*, got '?{name}"):
        resolve_device(name)
