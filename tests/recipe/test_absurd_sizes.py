"""Sizes of a stranger's recipe that no machine holds: refused in one line, before anything is made."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from helpers import tinymem

from tinymem.data.math.corpus import math_corpus
from tinymem.models.weights import METADATA
from tinymem.recipe.data import MathData
from tinymem.recipe.recipe import parse_recipe
from tinymem.recipe.sizes import planned_corpus_bytes
from tinymem.runs.pipeline import Run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 10**12}, "expected room for the recipe's corpus in the memory of this machine"),
        ({"primary_size": 2**53}, "expected room for the recipe's corpus"),
        ({"row_tokens": 10**12}, "expected room for the recipe's corpus"),
        ({"numbers": 10**12}, "expected room for the recipe's corpus"),
        ({"numbers": 10**400}, "recipe key 'data.numbers': input should be less than or equal to"),
        ({"modulus": 2**53, "family": "multiplicative", "primary": 2**20}, "expected numbers below 2^63"),
        ({"primary": 2**53, "numbers": 2**20}, "expected numbers below 2^63"),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_a_corpus_is_made(changes: dict[str, Any], message: str, tiny_run: Run, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "theirs")
    values = json.loads((checkpoint / METADATA).read_text())
    values["recipe"]["data"] |= changes
    (checkpoint / METADATA).write_text(json.dumps(values))
    error = tinymem("evaluate", checkpoint).one_line_error()
    assert message in error and len(error) < 400


@pytest.mark.parametrize("canary", [{"rows": 10**12, "length": 40}, {"rows": 2, "length": 10**9}], ids=str)
def test_absurd_canaries(canary: dict[str, int], tiny_run: Run, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(tiny_run.checkpoint, tmp_path / "theirs")
    values = json.loads((checkpoint / METADATA).read_text())
    values["recipe"]["artifacts"] = [{"kind": "canary", **canary}]
    (checkpoint / METADATA).write_text(json.dumps(values))
    assert "expected room" in (error := tinymem("evaluate", checkpoint).one_line_error()) or "less than or equal to 1000" in error


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "numbers", "tasks"), [(150, 20, 4), (150, 20, 0), (400, 20, 4), (150, 5, 4), (600, 90, 2)])
def test_the_estimate_is_right(tokens: int, numbers: int, tasks: int) -> None:
    data = {"family": "multiplicative", "size": 1000, "primary_size": 2000, "test_rows": 200, "numbers": numbers, "row_tokens": tokens}
    tasks_of = {"primary": 17, "auxiliary": [*range(2, 2 + tasks)]}
    noise = {"kind": "noise", "rows": 10}
    recipe = parse_recipe({"data": {**data, **tasks_of}, "artifacts": [noise], "evaluation": {"prompt": 5, "match": 2}})
    assert isinstance(recipe.data, MathData)
    tracemalloc.start()
    math_corpus(recipe, recipe.data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.77 < planned_corpus_bytes(recipe) / peak < 1.3
