"""What the README shows is there. That its commands run, `readme_commands` shows: a new user's first session runs it (`new_user.sh`)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_tree import COMMANDS
from helpers import QUICKSTART, ROOT
from readme_commands import PYTHON, README, RUN, SHELL, blocks, commands, prepare, run_command, words_of

from tinymem.mitigation.method import UNLEARNERS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with our recipes, the quickstart shrunken."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    with UNLEARNERS.temporary():
        yield tmp_path


def test_every_command_is_one_that_there_is() -> None:
    """Verb, options and choices are known; and each kind of block is one that is run, or shows what is printed."""
    verbs = set()
    for block in blocks(README.read_text(encoding="utf-8")):
        assert block.language in (*SHELL, PYTHON, "text"), f"README line {block.line}: what is in it is not run"
        for words in filter(None, map(words_of, commands(block.text))):
            verb = max((name for name in COMMANDS if words[1:][: len(name.split())] == name.split()), key=len)
            COMMANDS[verb].make_context(verb, words[1 + len(verb.split()) :])
            verbs.add(verb)
    assert {"run", "mitigate", "evaluate", "report", "methods", "new", "show", "sweep", "runs", "push"} <= verbs, "a verb is not shown"


def test_nothing_is_left_to_fill_in() -> None:
    for block in blocks(README.read_text(encoding="utf-8")):
        if block.language in ("bash", "python"):
            commands = [line.partition("#")[0] for line in block.text.splitlines()]
            found = [line for line in commands if re.search(r"<[a-z-]+>|\.\.\.|YOUR|/path/to", line)]
            assert not found, f"README line {block.line}: {found}"


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "extending.md"])
def test_commands_mean_one_run_whatever_else_was_trained(page: Path) -> None:
    """The quickstart's, by its name: a pattern would match those of other values of its recipe too."""
    found = re.findall(r"runs/(quickstart[^\s/`]*)", page.read_text(encoding="utf-8"))
    assert found and set(found) == {RUN}, f"the quickstart's run is {RUN}"


def test_names_in_the_text_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    for name in set(re.findall(r"\[[^\]]*\]\(([^)#:]+)\)", text)):
        assert (ROOT / name).exists(), f"the README links to {name}"
    for name in set(re.findall(r"\b(?:recipes|docs)/[\w./-]+\.(?:yaml|png|md)", text)):
        assert (ROOT / name).exists(), f"the README names {name}"


def test_the_table_is_one_that_the_quickstart_prints() -> None:
    methods = [next(iter(m)) if isinstance(m, dict) else m for m in yaml.safe_load(QUICKSTART.read_text())["mitigation"]["methods"]]
    tables = [block.text for block in blocks(README.read_text(encoding="utf-8")) if "holdout" in block.text]
    assert tables and all(any(line.startswith(method) for line in tables[0].splitlines()) for method in methods)
    title, _, _, *rows = tables[0].partition("memorized, forget")[0].splitlines()
    assert title == RUN and {row.split()[0] for row in rows} == set(methods)


@pytest.mark.processes
def test_the_harness(folder: Path) -> None:
    text = "a\n```bash\nmake x\ntinymem run\n```\n```python\nx = 1\n```\n```text\nno\n```\n"
    found = blocks(text)
    assert [(block.language, block.line) for block in found] == [("bash", 2), ("python", 6), ("text", 9)]
    shell = "make x  # y\n# only said\ncat > f.txt <<'END'\ntinymem\nEND\ntinymem new method \\\n  good\n\necho 1 > g.txt\n"
    assert list(commands(shell)) == ["cat > f.txt <<'END'\ntinymem\nEND", "tinymem new method   good", "echo 1 > g.txt"]
    assert [run_command(command, folder) for command in commands(shell)] == [None, "new", None]
    assert (folder / "f.txt").read_text() == "tinymem\n" and (folder / "good.py").exists() and (folder / "g.txt").exists()
    with pytest.raises(AssertionError, match="found none"):
        run_command("tinymem run none.yaml  # no such recipe", folder)
    with pytest.raises(subprocess.CalledProcessError):
        run_command("false && true", folder)
