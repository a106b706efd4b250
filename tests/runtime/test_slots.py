"""Worker slots: one definition, and the environment that each of their two users gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tinymem
from tinymem.errors import UserError
from tinymem.runs.jobs import job_slots
from tinymem.runtime import slots
from tinymem.runtime.slots import Slot, device_slots
from tinymem.sweep import places
from tinymem.sweep.places import local_workers


@pytest.fixture(autouse=True)
def two_gpus_and_six_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for module in (slots, places):
        monkeypatch.setattr(module, "available_cores", lambda: 6)


def of_sweep(device: str, jobs: int | None = None) -> list[Slot]:
    return [worker.slot for worker in local_workers(Path("sweep"), device, jobs)]


def test_slots_of_devices() -> None:
    assert device_slots("cpu", 2) == [Slot("0", "cpu", {}), Slot("1", "cpu", {})]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in device_slots("cuda", 2)] == ["0", "1", "0", "1"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in device_slots("cuda:1", 2)] == ["1", "1"]


def test_slots_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    workers = local_workers(Path("sweep"), "cuda", 2, gpus=2)
    assert [worker.slot.environment["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0,1", "2,3", "0,1", "2,3"]
    with pytest.raises(UserError, match="expected 6 GPUs here"):
        local_workers(Path("sweep"), "cuda", 1, gpus=6)


def test_threads_of_training_runs() -> None:
    """Weights depend on threads of the CPU, so that no number of jobs changes those; on GPUs runs side by side share the cores."""
    assert [slot.environment for slot in job_slots("cpu", 4)] == [{}] * 4
    assert [slot.environment for slot in job_slots("cpu", 1)] == [{}]
    assert [slot.environment for slot in job_slots("cuda", 1)] == [
        {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "3"}, {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3"},
    ]  # fmt: skip


def test_threads_that_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert [slot.environment for slot in job_slots("cuda:1", 2)] == [{"CUDA_VISIBLE_DEVICES": "1"}] * 2


def test_threads_of_sweeps() -> None:
    """Numbers depend on threads: a worker on the CPU has one, one on a GPU as many as it takes."""
    assert [slot.environment for slot in of_sweep("cpu")] == [{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}] * 6
    assert [slot.name for slot in of_sweep("cpu", jobs=2)] == ["0", "1"]
    assert [slot.environment for slot in of_sweep("cuda")] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert [slot.environment for slot in of_sweep("cuda:1", jobs=2)] == [{"CUDA_VISIBLE_DEVICES": "1"}] * 2


def test_slots_are_defined_once() -> None:
    package = Path(tinymem.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if "class Slot" in text] == ["runtime/slots.py"]
    assert {name for name, text in texts.items() if '"CUDA_VISIBLE_DEVICES": ' in text} == {"runtime/slots.py"}
    assert {name for name, text in texts.items() if '"OMP_NUM_THREADS": ' in text} == {"runtime/slots.py"}
