"""A finished run in a folder that cannot be written shows itself; what must be written there is said in one line, at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import METHODS, QUICKSTART, TINY, Done, sets, tinymem
from read_only import read_only

from tinymem.errors import UserError
from tinymem.mitigation import run as mitigation
from tinymem.runs.pipeline import Run, open_run
from tinymem.runtime.files import require_writable, write_if_changed


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run."""
    return Run(shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name), tiny_run.recipe)


def verb(word: str, run: Run, *overrides: str) -> Done:
    words = sets([*TINY, METHODS, *overrides])
    with read_only(run.path.parent):
        return tinymem(word, QUICKSTART, *words, "--runs", run.path.parent, "--device", "cpu")


def test_the_same_command_again(run: Run) -> None:
    for lock in (True, False):  # it may have come without: a copy, an archive
        done = verb("run", run)
        assert done.code == 0 and "balanced-subnet" in done.out and "report.html" in done.out, done.err
        assert "found the trained model" in done.err and "Traceback" not in done.err
        assert verb("train", run).code == 0
        assert (run.path / ".lock").exists() == lock
        (run.path / ".lock").unlink(missing_ok=True)


@pytest.mark.thorough
def test_what_only_reads(run: Run, tmp_path: Path) -> None:
    with read_only(run.path.parent):
        for words in (
            ("report", run.path),
            ("report", run.path, "--format", "json"),
            ("report", run.path.parent, "--tables", "all"),
            ("report", run.path, "--format", "html", "--out", tmp_path / "page.html"),
            ("check", run.path, "--write", tmp_path / "golden.json"),
            ("data", "inspect", run.path / "corpus", "--rows", "1"),
            ("data", "verify", run.path / "corpus"),
            ("evaluate", run.checkpoint),
            ("mitigate", run.checkpoint, "--method", "act", "--out", tmp_path / "edited"),
        ):
            done = tinymem(*words)
            assert done.code == 0 and done.out, done.err
        assert len(open_run(run.path).rows) == len(run.rows) and open_run(run.path).model()
        assert "Read-only file system" in tinymem("report", run.path, "--format", "html").one_line_error()


@pytest.mark.parametrize("change", ["method", "recipe", "result", "model"])
def test_what_must_be_written_is_said_before_the_work(run: Run, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(mitigation, "run_call", lambda *_, **__: pytest.fail("it ran"))
    if change == "result":
        next((run.path / "results").iterdir()).unlink()
    if change == "model":
        shutil.rmtree(run.checkpoint)
    done = verb("run", run, *{"method": ["mitigation.methods=[zero]"], "recipe": ["seed=1"]}.get(change, []))
    assert "Read-only file system" in done.last_line_error() and "could not write" in done.err


def test_results_are_not_made_for_a_folder_that_takes_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the run's folder itself can be written."""
    monkeypatch.setattr(mitigation, "run_call", lambda *_, **__: pytest.fail("it ran"))
    with read_only(run.path / "results"):
        done = tinymem("run", QUICKSTART, *sets([*TINY, "mitigation.methods=[zero]"]), "--runs", run.path.parent, "--device", "cpu")
    assert f"could not write {run.path / 'results'}" in done.last_line_error()


def test_writing_where_nothing_changes(tmp_path: Path) -> None:
    assert write_if_changed(tmp_path / "a", "é") and not write_if_changed(tmp_path / "a", "é")
    with read_only(tmp_path):
        assert not write_if_changed(tmp_path / "a", "é")
        with pytest.raises(UserError, match="Read-only"):
            write_if_changed(tmp_path / "a", "e")
        with pytest.raises(UserError, match="Read-only"):
            require_writable(tmp_path)
    require_writable(tmp_path / "new")
    assert (tmp_path / "a").read_text() == "é" and not list((tmp_path / "new").iterdir())
