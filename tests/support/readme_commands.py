"""The README's shell and Python blocks, in order, on a shrunken recipe: `python tests/support/readme_commands.py`.

Needs TinyMem alone, and none of what its tests need: `tests/new_user.sh` runs it in the environment that `make quickstart` made.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}  # before torch is loaded
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from helpers import QUICKSTART, ROOT, TINY, environment, tinymem
from hub_stub import point_client_to, serving

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.recipe import dump_recipe, load_recipe

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL, PYTHON = ("bash", "sh", "shell", "console"), "python"
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


def words_of(command: str) -> list[str]:
    """The words of a command that is one of ours alone; none of others."""
    words = shlex.split(command, comments=True) if command.startswith("tinymem ") else []
    return [] if {"|", "&&", ";", ">"} & set(words) else words


def run_command(command: str, folder: Path) -> str | None:
    """Run a command in a folder and return the verb, if it is one of ours. Those run in this process: torch is loaded already."""
    shrunken = load_recipe(folder / "recipes" / QUICKSTART.name).run_id()
    for long, short in {**WINDOWS, RUN: shrunken}.items():
        command = command.replace(long, short)
    words = words_of(command)
    if not words:
        subprocess.run(["bash", "-euc", command], cwd=folder, env=environment(), check=True, timeout=120)
        return None
    done = tinymem(*words[1:])
    assert done.code == 0, f"{command}\n{done.out[-1000:]}\n{done.err[-2000:]}"
    assert done.out.strip(), f"{command} prints nothing"
    return words[1]


def prepare(folder: Path) -> None:
    """Make a folder what the README is read in: our recipes, the quickstart shrunken, and the shipped models."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "zoo").symlink_to(ROOT / "zoo")
    (folder / "recipes" / QUICKSTART.name).write_text(dump_recipe(load_recipe(QUICKSTART, TINY)))


def run_readme(folder: Path) -> int:
    """Run every command and every block of Python in a folder, and return their number; the first that fails is raised."""
    count, namespace = 0, {"__name__": "readme"}
    for block in blocks(README.read_text(encoding="utf-8")):
        for command in commands(block.text) if block.language in SHELL else ():
            started, count = time.monotonic(), count + 1
            run_command(command, folder)
            print(f"{time.monotonic() - started:5.1f} s  {command.splitlines()[0]}", flush=True)
        if block.language == PYTHON:
            exec(compile(block.text, f"README.md:{block.line}", "exec"), namespace)
            count += 1
    return count


def main() -> None:
    """Run the README in a folder that is removed afterwards; warnings are errors but of tiny rows and of what is not installed."""
    warnings.simplefilter("error", UserWarning)
    for expected in (".*not memorized by the model", "all metrics are those that are installed"):
        warnings.filterwarnings("ignore", expected)
    with tempfile.TemporaryDirectory() as name, serving() as hub, UNLEARNERS.temporary():
        folder = Path(name)
        os.environ |= {"XDG_STATE_HOME": str(folder / "state"), "TINYMEM_CACHE": str(folder / "cache")}
        point_client_to(hub, folder / "hf", SimpleNamespace(setattr=setattr, setenv=os.environ.__setitem__))
        hub.organizations.append("my-org")
        prepare(folder)
        os.chdir(folder)
        print(f"the README's {run_readme(folder)} commands and blocks ran")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
