"""Names of devices: what is there is taken, what is not is refused with what is."""

from __future__ import annotations

import pytest
import torch

from tinymem.errors import UserError
from tinymem.runtime.device import describe_device, resolve_device, spread_devices


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


def test_a_model_is_spread_over_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name, 2) for name in ("auto", "cuda")] == ["cuda", "cuda"]
    assert (spread_devices("cuda:1", 1), spread_devices("cuda", 2)) == (["cuda:1"], ["cuda:0", "cuda:1"])
    for name in ("cpu", "cuda:1"):
        with pytest.raises(UserError, match=f"expected --device cuda to spread a model over 2 GPUs, got {name}"):
            resolve_device(name, 2)
    with pytest.raises(UserError, match="expected 3 GPUs here to spread a model over, found 2; lower --gpus"):
        resolve_device("auto", 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "NVIDIA H100")
    assert (describe_device("cuda"), describe_device("cuda", 2)) == ("NVIDIA H100", "2 x NVIDIA H100")
