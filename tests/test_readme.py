"""What the README shows runs: its shell and Python blocks, in order, on a shrunken recipe."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import QUICKSTART, ROOT, TINY, environment, tinymem
from hub_stub import Hub

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.recipe import dump_recipe, load_recipe

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Rows in the README are as long as the quickstart's; these windows fit the shrunken rows.
WINDOWS = {"--prompt 20": "--prompt 12", "--match 20": "--match 12"}
RUN = load_recipe(QUICKSTART).run_id()
# `make` and containers are for .ci/run, and an environment is active here.
NOT_HERE = re.compile(r"\s*(make|docker|git|cd|pip|\.|source) ")


@dataclass(frozen=True)
class Block:
    """A fenced block of the README."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in FENCE.finditer(text)]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block, each with its here-document or continued lines."""
    lines = iter(text.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\"):
            command = command[:-1] + next(lines)
        if document := re.search(r"<<-?\s*['\"]?(\w+)", command):
            for inside in lines:
                command += f"\n{inside}"
                if inside == document[1]:
                    break
        if command.strip() and not command.startswith("#") and not NOT_HERE.match(command):
            yield command


def run_command(command: str, folder: Path) -> str | None:
    """Run a command in a folder and return the verb, if it is one of ours. Those run in this process: torch is loaded already."""
    shrunken = load_recipe(folder / "recipes" / QUICKSTART.name).run_id()
    for long, short in {**WINDOWS, RUN: shrunken}.items():
        command = command.replace(long, short)
    words = shlex.split(command, comments=True) if command.startswith("tinymem ") else []
    if not words or {"|", "&&", ";", ">"} & set(words):
        subprocess.run(["bash", "-euc", command], cwd=folder, env=environment(), check=True, timeout=120)
        return None
    done = tinymem(*words[1:])
    assert done.code == 0, f"{command}\n{done.out[-1000:]}\n{done.err[-2000:]}"
    assert done.out.strip(), f"{command} prints nothing"
    return words[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with our recipes, the quickstart shrunken."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "zoo").symlink_to(ROOT / "zoo")
    (tmp_path / "recipes" / QUICKSTART.name).write_text(dump_recipe(load_recipe(QUICKSTART, TINY)))
    monkeypatch.chdir(tmp_path)
    with UNLEARNERS.temporary():
        yield tmp_path


@pytest.mark.filterwarnings("ignore:.*not memorized by the model")  # of the shrunken recipe's
@pytest.mark.training
@pytest.mark.processes
def test_every_block_runs(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.organizations.append("my-org")
    verbs, namespace, languages = set(), {"__name__": "readme"}, set()
    for block in blocks(README.read_text(encoding="utf-8")):
        if block.language in ("bash", "sh", "shell", "console"):
            verbs |= {run_command(command, folder) for command in commands(block.text)}
        elif block.language == "python":
            exec(compile(block.text, f"README.md:{block.line}", "exec"), namespace)
        languages.add(block.language)
    assert {"bash", "python"} <= languages
    assert {"run", "mitigate", "evaluate", "report", "methods", "new"} <= verbs, "a verb is not shown"
    assert "->" in capsys.readouterr().out  # what the Python block prints


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
    first = {line.split()[0] for line in tables[0].partition("memorized, forget")[0].splitlines()[2:]}
    assert first == set(methods)


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
