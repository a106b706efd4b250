"""`tinymem init`: recipes that run as they are written, and say what to change."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path

import pytest
from helpers import SMALLER, sets, tinymem

from tinymem.recipe.keys import recipe_keys
from tinymem.recipe.recipe import load_recipe
from tinymem.recipe.sweep import load_sweep
from tinymem.runs.pipeline import Run

STARTERS = ("math", "text", "sweep")


@pytest.mark.parametrize("starter", STARTERS)
def test_it_writes_a_recipe_and_says_what_to_do(starter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = tinymem("init", *([starter] if starter != "math" else []))
    path = tmp_path / f"{starter}.yaml"
    assert done.code == 0 and f"{starter}.yaml" in done.out and "then: tinymem " in done.out
    path.write_text(path.read_text() + "# mine\n")
    assert "found one" in tinymem("init", starter).one_line_error()
    assert path.read_text().endswith("# mine\n")
    (load_sweep if starter == "sweep" else load_recipe)(path)


def test_another_word_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tinymem("init", "maths").last_line_error()
    assert not [*tmp_path.iterdir()]


def test_they_are_data_of_the_package() -> None:
    folder = importlib.resources.files("tinymem.cli").joinpath("templates", "recipes")
    assert {entry.name for entry in folder.iterdir()} == {f"{starter}.yaml" for starter in STARTERS}


@pytest.mark.parametrize("starter", STARTERS)
def test_each_key_has_a_word_or_is_plain(starter: str) -> None:
    """A comment for most lines, and keys in comments that exist."""
    lines = importlib.resources.files("tinymem.cli").joinpath("templates", "recipes", f"{starter}.yaml").read_text().splitlines()
    assert sum("#" in line for line in lines) > len(lines) / 3
    names = {key.name for key in recipe_keys()}
    for line in lines:
        if found := re.match(r"\s*# ([a-z_]+): \S", line):
            assert found[1] in names, line


@pytest.mark.training
def test_math_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tinymem("init")
    done = tinymem("run", "math.yaml", *sets([*SMALLER, "mitigation.methods=[act]"]), "--device", "cpu")
    assert done.code == 0, done.err
    assert {row["method"] for row in json.loads(tinymem("report", *Path("runs").glob("math-*"), "--format", "json").out)} == {"act"}


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.training
def test_a_sweep_runs(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tinymem("init", "sweep")
    chosen = sets([f"checkpoints={tiny_run.checkpoint}", "methods=[random-weights: {ratio: [0.01, 0.1]}]"])
    done = tinymem("sweep", "sweep.yaml", *chosen, "--jobs", 1, "--device", "cpu")
    assert done.code == 0 and "2 ok" in done.out, done.out + done.err
