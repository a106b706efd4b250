"""What strangers' rows, names and files hold never controls the terminal: colors, moves, bells, lines written over or backwards."""

from __future__ import annotations

import ast
import io
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from figure_rows import curve, row, write_run
from helpers import ROOT, tinymem

from tinymem.data import samples
from tinymem.errors import one_line, printable
from tinymem.report.tables.catalogue import tables_of
from tinymem.results.collect import results_of
from tinymem.runtime.console import Console
from tinymem.runtime.progress import Progress
from tinymem.runtime.streams import echo

EVIL = ["\x1b[2J", "\x1b]0;title\x07", "\rover", "\x9b31m", "\x08\x7f", "\u202egnp.exe", "\u2066\u2069", "\u2028ln", "\u200bhidden"]
ALL = "é".join(EVIL)
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*[AK]|\x1b\[2K|\r(?=\x1b|\n|$)")  # colors, and moves of bars


class Terminal(io.StringIO):
    """What a terminal gets."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "pipe"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output and error, of a terminal or not."""
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("TERM", "xterm-256color")
    found: io.StringIO = request.param()
    return found


@contextmanager
def on(stream: io.StringIO) -> Iterator[None]:
    with redirect_stdout(stream), redirect_stderr(stream):
        yield


def assert_harmless(text: str, *, where: str = "") -> None:
    own = OURS.sub("", text)
    found = {c for c in own if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert not found, f"{where}: {found} in {own!r}"


def test_what_is_escaped_and_what_stays() -> None:
    for text in EVIL:
        assert_harmless(printable(text))
    plain = "two\nlines\tand a\xa0space, é, 中, 🙂, joined\u200cor not"
    assert printable(plain) == plain
    assert printable("\x1b[31m\u202e\U000e0041") == "\\x1b[31m\\u202e\\U000e0041"
    assert one_line("a\xa0b\n\x1bc") == "a b \\x1bc"


def test_tables(stream: io.StringIO, tmp_path: Path) -> None:
    from tinymem.report.render.terminal import print_tables

    names = {"model_name": f"model {ALL}", "message": f"why [/] {ALL}", "regularizer": ALL, "data": f"data{ALL}"}
    rows = [row(f"method{ALL}", f"artifact{ALL}", status="failed", **names), row("act", f"artifact{ALL}", **names)]
    for width in (240, 40):
        with on(stream):
            console = Console()
            console.width = width
            print_tables(tables_of(results_of(rows), None), console)
    text = stream.getvalue()
    assert_harmless(text)
    assert "\\x1b[2J" in text.replace("\n", "")


FORMATS = [("--format", "table"), ("--format", "csv"), ("--format", "json"), ("--format", "markdown"), ("--tables", "all")]


@pytest.mark.parametrize("words", FORMATS)
def test_reports_of_a_strangers_run(words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"model_name": f"model {ALL}", "message": f"why [/] {ALL}"}
    rows = [row(f"method{ALL}", f"artifact{ALL}", id="a", status="failed", **names), row(id="b", **names)]
    run = write_run(tmp_path / "run", rows, curve())
    monkeypatch.setattr("helpers.io", SimpleNamespace(StringIO=Terminal))
    done = tinymem("report", run, *words)
    assert done.code == 0 and "act" in done.out, done.err
    assert_harmless(done.out + done.err)


def test_samples(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = SimpleNamespace(
        ids=np.array([[1, 2, 3]]), copies=np.array([2]), start=np.array([1]), end=np.array([2]), clean=np.array([[1, 0, 3]])
    )
    corpus: Any = SimpleNamespace(planted={f"kind{ALL}": planted}, clean=np.array([[1, 2, 3]]))
    monkeypatch.setattr(samples, "decoder", lambda _: lambda ids: f"[bold]{ids}\t\n{ALL}")
    with on(stream):
        samples.print_samples(corpus, 1)
    text = stream.getvalue()
    assert_harmless(text)
    assert "[bold][2]\\t\\n\\x1b[2J" in text, "no markup either"


def test_progress(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinymem.runtime.progress.LOG_EVERY_SECONDS", 0.0)
    with on(stream):
        progress = Progress(show=True)
        progress.say(f"said {ALL}")
        with progress.stage(f"stage [/] {ALL}", 2) as bar:
            bar.advance(1, f"note [/] {ALL}")
        echo(f"echoed {ALL}")
    assert_harmless(stream.getvalue())
    assert "said \\x1b[2J" in stream.getvalue() and "echoed" in stream.getvalue()


@pytest.mark.slow
def test_text_reaches_the_terminal_by_these_ways_alone() -> None:
    """`print` and rich's own console would let it through; the timings of `bench` have no stranger's text, and run without rich."""
    allowed = {"errors.py", "cli/main.py", "runtime/streams.py", "runtime/console.py"}
    for path in (ROOT / "tinymem").rglob("*.py"):
        name = path.relative_to(ROOT / "tinymem").as_posix()
        if name in allowed or name.startswith("bench/"):
            continue
        tree = ast.parse(path.read_text())
        prints = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
        assert not prints, f"{name} prints in lines {prints}; use tinymem.runtime.streams.echo"
        made = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Console"]
        ours = "from tinymem.runtime.console import Console" in path.read_text() or name == "runtime/progress.py"
        assert not made or ours, f"{name} has a console of rich in lines {made}; use tinymem.runtime.console.Console"
