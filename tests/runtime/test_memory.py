"""Free memory and disk, and the refusal of what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import QUICKSTART

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


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.refuse_beyond_memory(1, "cpu", "nothing")
    with pytest.raises(UserError, match=r"expected room for a model in the memory of this machine, got .* GiB are needed"):
        memory.refuse_beyond_memory(2**60, "cpu", "a model")
    memory.refuse_beyond_disk(1, tmp_path / "new" / "folder", "nothing")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=99))
    with pytest.raises(UserError, match="expected room for an edit on the disk"):
        memory.refuse_beyond_disk(100, tmp_path / "new" / "folder", "an edit")


def test_a_training_that_cannot_fit() -> None:
    refuse_training_beyond_memory(load_recipe(QUICKSTART), "cpu")
    with pytest.raises(UserError, match="expected room for the training of"):
        refuse_training_beyond_memory(load_recipe(QUICKSTART, ["model.n_embd=4000000"]), "cpu")
