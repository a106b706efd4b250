"""Names of devices: what is there is taken, what is not is refused with what is."""

from __future__ import annotations

import pytest
import torch

from tinymem.device import resolve_device
from tinymem.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_are_there() -> None:
    assert [resolve_device(name) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("name", "says"), [("cuda:2", "found 2, counted from 0; try --device cuda:1"), ("cuda:x", "auto, cpu or cuda")])
def test_gpus_that_are_not(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        resolve_device(name)
