"""Fixtures of the zoo's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import tinymem

from tinymem.recipe.recipe import dump_recipe
from tinymem.runs.pipeline import Run


@pytest.fixture
def small(tiny_run: Run, tmp_path: Path) -> Path:
    """A zoo of one small checkpoint, added by the command."""
    folder = tmp_path / "tiny-2l-s0"
    shutil.copytree(tiny_run.checkpoint, folder)
    (folder / "recipe.yaml").write_text(dump_recipe(tiny_run.recipe))
    shutil.copy(tiny_run.path / "training" / "metrics.jsonl", folder / "curve.jsonl")
    (tmp_path / "zoo").mkdir()
    done = tinymem("zoo", "add", folder, "--zoo", tmp_path / "zoo")
    assert (done.code, done.out) == (0, "tiny-2l-s0\n"), done.err
    return tmp_path / "zoo"
