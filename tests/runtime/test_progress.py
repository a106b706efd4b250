"""Bars in terminals and notebooks, from Python as from the command line, and nothing anywhere else."""

from __future__ import annotations

import builtins
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rich

import tinymem
from tinymem.mitigation.run import Subject
from tinymem.runs.pipeline import Run
from tinymem.runtime.progress import Progress, in_notebook, progress_of


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in the test itself: pytest sets its own standard error between fixtures and test."""
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    return found


class Shown:
    """A cell's output, as IPython's handle of it."""

    def __init__(self, first: object) -> None:
        self.texts: list[str] = []
        self.update(first)

    def update(self, value: object) -> None:
        self.texts.append(value._repr_mimebundle_([], [])["text/plain"])


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """A kernel: IPython is there, in a shell of the name that kernels have. Returns the outputs of its cells."""
    shown: list[Shown] = []

    def display(value: object, display_id: bool) -> Shown:
        assert display_id, "an output that can be replaced"
        shown.append(Shown(value))
        return shown[-1]

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(rich, "_console", None)  # made once, for where it is
    monkeypatch.setattr(builtins, "get_ipython", type("ZMQInteractiveShell", (), {}), raising=False)
    return shown


def work(progress: Progress | bool) -> None:
    with progress_of(progress).stage("train x", 4, done=1) as bar:
        bar.advance(1, "a note")
        bar.expect(5)
        bar.advance(3)


def test_nothing_is_shown_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    work(True)
    progress_of(True).say("found")
    assert capfd.readouterr() == ("", "")
    given = Progress(show=True)
    assert progress_of(given) is given, "the command line's, which logs"


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    work(True)
    assert "train x" in terminal.getvalue() and "100%" in terminal.getvalue()
    progress_of(True).say("found")
    assert terminal.getvalue().endswith("found\n")


@pytest.mark.parametrize("wanted", [False, Progress()])
def test_an_argument_turns_it_off(monkeypatch: pytest.MonkeyPatch, notebook: list[Shown], wanted: Progress | bool) -> None:
    terminal = as_terminal(monkeypatch)
    work(wanted)
    progress_of(wanted).say("found")
    assert terminal.getvalue() == "" and not notebook


def test_a_notebook_has_the_same_bar(notebook: list[Shown], capfd: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    work(True)
    [shown] = notebook
    assert "train x" in shown.texts[0] and "25%" in shown.texts[0]
    assert "100%" in shown.texts[-1], "the last state is shown, however short the stage was"
    progress_of(True).say("found")
    assert capfd.readouterr() == ("found\n", "")


def test_a_failed_stage_stays_as_far_as_it_came(notebook: list[Shown]) -> None:
    with pytest.raises(ZeroDivisionError), progress_of(True).stage("x", 2) as bar:
        bar.advance()
        raise ZeroDivisionError
    assert "50%" in notebook[0].texts[-1]


def test_ipython_without_a_kernel_is_a_terminal(notebook: list[Shown], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    monkeypatch.setattr(builtins, "get_ipython", type("TerminalInteractiveShell", (), {}))
    work(True)
    assert not notebook and "train x" in terminal.getvalue()


def test_a_bar_within_a_bar_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    from rich.progress import track

    for _ in track(range(2), disable=False):
        work(True)
    assert "train x" in terminal.getvalue()


def test_functions_show_it(paper: Subject, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)

    def shown(name: str) -> bool:
        found = terminal.getvalue()
        terminal.truncate(0)
        return name in found

    tinymem.mitigate(paper, "act", {"ratio": 0.05})
    assert shown("mitigate act")
    tinymem.evaluate_checkpoint(tiny_run.checkpoint, device="cpu")
    assert shown("evaluate")
    tinymem.train(tiny_run.recipe.model_copy(update={"training": tiny_run.recipe.training.model_copy(update={"epochs": 1})}),
                  tiny_run.corpus(), tmp_path)  # fmt: skip
    assert shown("train quickstart")
    tinymem.mitigate(paper, "act", {"ratio": 0.05}, progress=False)
    tinymem.evaluate_checkpoint(tiny_run.checkpoint, device="cpu", progress=False)
    assert terminal.getvalue() == ""


def test_a_stage_without_an_end_is_logged_by_its_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tinymem.runtime.progress.LOG_EVERY_SECONDS", 0.0)
    with Progress(show=True).stage("rows tested", 0) as bar:
        bar.advance(5, "2 memorized")
    assert capsys.readouterr().err.startswith("rows tested: 5, ")
