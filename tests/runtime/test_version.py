"""The version and the commit of the checkout that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tinymem
from tinymem.runtime import version
from tinymem.runtime.version import version_and_commit


def test_the_commit_is_the_checkouts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    answers = {"rev-parse --show-toplevel": tmp_path, "status": "", "rev-parse --short HEAD": "abc1234"}

    def answer(root: Path, *words: str) -> str:
        asked.append(root)
        return next(str(said) for start, said in answers.items() if " ".join(words).startswith(start))

    monkeypatch.setattr(version, "_git", answer)
    assert version_and_commit.__wrapped__() == tinymem.__version__, "another repository's commit says nothing about the package"
    answers["rev-parse --show-toplevel"] = asked[0]
    assert version_and_commit.__wrapped__() == f"{tinymem.__version__}, commit abc1234"
    answers["status"] = " M tinymem/x.py"
    assert version_and_commit.__wrapped__() == f"{tinymem.__version__}, commit abc1234 with changes"


@pytest.mark.processes
def test_without_git_it_is_the_version_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(rf"{re.escape(tinymem.__version__)}(, commit [0-9a-f]{{7,}}( with changes)?)?", version_and_commit.__wrapped__())
    monkeypatch.setenv("PATH", "")
    assert version_and_commit.__wrapped__() == tinymem.__version__
