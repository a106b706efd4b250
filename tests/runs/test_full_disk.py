"""A disk that is full while something is written: one line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import QUICKSTART, SMALLER, Done, files_of_at_most, half_written, sets, tinymem

from tinymem.errors import UserError
from tinymem.runs.pipeline import Run
from tinymem.runtime.locks import sole_writer
from tinymem.testing import tiny_model


def run_small(runs: Path, verb: str = "train") -> Done:
    return tinymem(verb, QUICKSTART, *sets([*SMALLER, "training.keep_epochs=[1]"]), "--runs", runs, "--device", "cpu")


@pytest.mark.training
@pytest.mark.parametrize("size", [0, 3_000, 20_000, 60_000])
def test_a_full_disk_while_training(tmp_path: Path, size: int) -> None:
    with files_of_at_most(size):
        done = run_small(tmp_path / "runs")
    assert "could not write" in done.last_line_error() and "free or change the place" in done.err
    assert not half_written(tmp_path)
    assert not list(tmp_path.rglob("checkpoint*"))
    assert run_small(tmp_path / "runs").code == 0  # goes on
    assert len(list(tmp_path.rglob("checkpoint/model.safetensors"))) == 1


@pytest.mark.filterwarnings("ignore:.*rows to forget:UserWarning")  # nothing is memorized here, and the rows are kept too
@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_full_disk_while_the_edit_is_written(checkpoint: Path, tmp_path: Path, family: str) -> None:
    rows, words = tmp_path / "rows.npy", []
    if family == "llama":
        tiny_model("llama").save_pretrained(tmp_path / "llama")
        np.save(rows, np.arange(48).reshape(4, 12) % 17)
        checkpoint, words = tmp_path / "llama", ["--forget", rows, "--retain", rows, "--prompt", 3, "--match", 6]
    with files_of_at_most(2_000):
        done = tinymem("mitigate", checkpoint, "--method", "act", *words, "--out", tmp_path / "edited")
    assert "could not write" in done.last_line_error()
    assert "act" in done.out, "the numbers of the edit are printed all the same"
    assert not (tmp_path / "edited").exists() and not half_written(tmp_path)


def test_two_writers_of_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    """One of them is told, at its start; afterwards the name is free."""
    out = tmp_path / "edited"
    words = ("mitigate", checkpoint, "--method", "random-neurons", "--out", out)
    with sole_writer(out):
        assert tinymem(*words).one_line_error().startswith(f"another process is writing {out}")
    assert tinymem(*words).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["edited"]


def test_an_error_leaves_no_empty_folder(tmp_path: Path) -> None:
    """Nor does it take one that was there, or that another process has begun to fill."""
    (there := tmp_path / "there").mkdir()
    for out in (there / "edited", tmp_path / "some" / "new" / "edited"):
        with pytest.raises(UserError, match="no such"), sole_writer(out):
            raise UserError("no such rows")
    assert list(tmp_path.rglob("*")) == [there]
    with pytest.raises(UserError, match="no such"), sole_writer(tmp_path / "shared" / "edited"):
        (tmp_path / "shared" / "other").touch()
        raise UserError("no such rows")
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["other"]


def test_two_makers_of_one_corpus(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    words = ("data", "make", QUICKSTART, *sets(SMALLER), "--out", out)
    with sole_writer(out):
        assert tinymem(*words).one_line_error().startswith(f"another process is writing {out}")
        assert not out.exists()
    for _ in range(2):
        assert tinymem(*words).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.thorough
def test_a_full_disk_while_reporting(tiny_run: Run, tmp_path: Path) -> None:
    for words in (("--format", "html", "--out", "page"), ("--format", "csv", "--out", "rows.csv"), ("--out", "everything")):
        with files_of_at_most(100):
            done = tinymem("report", tiny_run.path, *words[:-1], tmp_path / words[-1])
        assert "could not write" in done.one_line_error()
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize("call", range(0, 42, 6))
def test_a_disk_that_fills_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    real, calls = os.fsync, 0

    def fsync(descriptor: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    done = run_small(tmp_path)
    monkeypatch.undo()
    if done.code:  # else it needed fewer writes
        assert "No space left on device" in done.last_line_error()
    assert not half_written(tmp_path)
    assert run_small(tmp_path).code == 0
    assert len(list(tmp_path.rglob("model.safetensors"))) == 2  # of the kept epoch and the last
