"""Free memory and disk, and the refusal of what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import QUICKSTART, python

from tinymem.errors import UserError
from tinymem.recipe.recipe import load_recipe
from tinymem.runtime import memory
from tinymem.training.start import refuse_training_beyond_memory


def test_free_memory_is_that_of_this_machine() -> None:
    free = memory.free_memory("cpu")
    assert free is not None and 2**20 < free < 2**50


def test_a_container_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 10\ninactive_file 700\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory("cpu") == 2700
    (tmp_path / "memory.max").write_text("max\n")
    assert (memory.free_memory("cpu") or 0) > 2**20


def test_the_largest_memory_is_of_the_machine_or_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = memory.largest_memory()
    assert machine >= (memory.free_memory("cpu") or 0)
    (tmp_path / "memory.max").write_text("5000")
    assert memory.largest_memory() == 5000
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda k: SimpleNamespace(total_memory=[6000, 4000][k]))
    assert memory.largest_memory() == 6000


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.refuse_beyond_memory(1, "cpu", "nothing")
    with pytest.raises(UserError, match=r"expected room for a model in the memory of this machine, got .* GiB are needed"):
        memory.refuse_beyond_memory(2**60, "cpu", "a model")
    memory.refuse_beyond_disk(1, tmp_path / "new" / "folder", "nothing")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**18))
    with pytest.raises(UserError, match=r"expected room for an edit on the disk of .*, got 0\.25 MiB free where 1\.50 MiB are needed"):
        memory.refuse_beyond_disk(3 * 2**19, tmp_path / "new" / "folder", "an edit")


def test_the_memory_of_several_gpus_counts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", {"cuda:0": 20, "cuda:1": 30}.__getitem__)
    memory.refuse_beyond_memory(50, "cuda", "a model", gpus=2)
    with pytest.raises(UserError, match="expected room for a model in the memory of 2 GPUs, got"):
        memory.refuse_beyond_memory(51, "cuda", "a model", gpus=2)


def test_a_training_that_cannot_fit() -> None:
    refuse_training_beyond_memory(load_recipe(QUICKSTART), 30_000, "cpu")
    refuse_training_beyond_memory(load_recipe(QUICKSTART, ["training.batch_size=1000000000"]), 300, "cpu")
    with pytest.raises(UserError, match="expected room for the training of"):
        refuse_training_beyond_memory(load_recipe(QUICKSTART, ["model.n_embd=4000000"]), 30_000, "cpu")
    with pytest.raises(UserError, match=r"on batches of 100000000 rows .*training\.batch_size"):
        refuse_training_beyond_memory(load_recipe(QUICKSTART, ["training.batch_size=100000000"]), 10**9, "cpu")


# Two training steps of each size in a process of its own, forked from one that has torch: bytes by which the peak exceeds what was there.
PEAKS = """
import os, sys, tinymem, torch
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.recipe import parse_recipe
from tinymem.training.loss import LossModel, batch_loss
from tinymem.training.optimizer import make_optimizer
from tinymem.training.start import training_bytes

def status(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

def steps(L, D, B, T):
    model = {"n_layer": L, "n_embd": D, "n_head": 4}
    values = {"model": model, "data": {"row_tokens": T}, "training": {"batch_size": B}, "evaluation": {"prompt": 8, "match": 8}}
    recipe = parse_recipe(values)
    gpt = GPT(GPTConfig(vocab_size=14, n_positions=T, **model), seed=0)
    loss_model, optimizer = LossModel(gpt), make_optimizer(gpt.parameters(), recipe.training)
    ids = torch.randint(14, (B, T))
    for _ in range(2):
        batch_loss(loss_model, ids).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return recipe

torch.set_num_threads(1)
steps(1, 16, 2, 20)
for size in ((2, 64, 192, 150), (4, 128, 64, 100), (2, 512, 16, 60)):
    if not (child := os.fork()):
        open("/proc/self/clear_refs", "w").write("5")
        before = status("VmRSS")
        recipe = steps(*size)
        print(training_bytes(recipe, 10**6, "cpu"), status("VmHWM") - before, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="needs Linux's /proc")
def test_the_estimate_of_training_is_right_within_a_third() -> None:
    lines = [tuple(map(int, line.split())) for line in python("-c", PEAKS).out.splitlines()]
    assert len(lines) == 3
    for estimate, peak in lines:
        assert 0.7 < estimate / peak < 1.3, f"{estimate / 2**20:.0f} MiB, in truth {peak / 2**20:.0f}"
