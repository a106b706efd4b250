"""What installs TinyMem: the environment that make sets up, and the image, whose files and paths exist and fit the README."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Stands for Python: answers what the Makefile asks, and makes environments of nothing.
FAKE = """#!/bin/sh
case "$*" in
    *"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *_base_executable*) echo "$0" ;;
    *'%d.%d'*) cat "$(dirname "$0")/version" ;;
esac
"""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, with continued lines joined and variables of `ENV` and `ARG` as they are written."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def make_environment(folder: Path) -> Path:
    """Let make set up an environment with the stand-in; returns a mark that a new one lacks."""
    words = ["make", "-C", str(ROOT), f"VENV={folder / '.venv'}", f"PYTHON={folder / 'python'}", f"{folder / '.venv'}/python.txt"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return folder / ".venv" / "mark"


@pytest.mark.processes
def test_an_environment_of_another_python_or_place_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "version").write_text("3.11\n")
    mark = make_environment(tmp_path)
    mark.touch()
    assert make_environment(tmp_path).exists(), "the same Python and place: it stays"
    (tmp_path / "version").write_text("3.12\n")
    assert not make_environment(tmp_path).exists()
    mark.touch()
    (tmp_path / ".venv" / "python.txt").write_text("3.12 /elsewhere/.venv\n")
    assert not make_environment(tmp_path).exists()


def test_pip_is_quiet_and_each_step_says_so() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "pip install --quiet" in text and text.count('@echo "installing ') == 2
    assert all(line.startswith("\t@") for line in text.splitlines() if line.startswith("\t") and "--index-url" in line)


def test_the_image_is_consistent() -> None:
    found = instructions()
    (work,) = [rest for word, rest in found if word == "WORKDIR"]
    copied = [name for word, rest in found if word == "COPY" for name in shlex.split(rest)[1:-1]]
    assert {"Makefile", "constraints.txt", "."} <= set(copied) and all((ROOT / name).exists() for name in copied)
    path = next(rest for word, rest in found if word == "ENV" and rest.startswith("PATH="))
    assert path == f"PATH={work}/.venv/bin:$PATH", "the environment that make installs is the one on PATH"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [target for word, rest in found if word in ("RUN", "CMD") for target in re.findall(r'make"?,? "?([\w./-]+)', rest)]
    assert targets == [".venv/torch.stamp", "install", "quickstart"]
    assert all(re.search(rf"^(\.PHONY:.* )?{target}\b", makefile, re.MULTILINE) for target in targets[1:])
    assert not any(word == "ENTRYPOINT" for word, _ in found), "any command may follow the image's name"
    order = [word for word, rest in found if word == "USER" or rest.startswith("make ")]
    assert order[0] == "USER", "nothing is installed as root"


def test_the_readme_runs_the_image_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^docker .*?(?=\s+#|$)", readme, re.MULTILINE)
    (work,) = [rest for word, rest in instructions() if word == "WORKDIR"]
    assert any(command == "docker build -t tinymem ." for command in commands)
    assert any(command.endswith("tinymem tinymem --help") for command in commands)
    assert any("--gpus all" in command for command in commands) and any(f":{work}/runs" in command for command in commands)
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^tinymem = "tinymem\.cli\.main:main"', scripts, re.MULTILINE)


def test_the_first_session_is_part_of_the_check() -> None:
    script = ROOT / "tests" / "new_user.sh"
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o100
    assert steps.index("\nmake quickstart") < steps.index("\ntests/new_user.sh .venv") < steps.index("\nmake test"), "its environment alone"
    readme = "tests/support/readme_commands.py"
    assert (ROOT / readme).is_file() and f'python "$repo/{readme}"' in script.read_text(encoding="utf-8")
