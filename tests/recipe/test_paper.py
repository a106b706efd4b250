"""The paper's methods, grids and counts: one source, which agrees with the registered grids; and no method falls out of a list."""

from __future__ import annotations

import ast
import math
from typing import get_args

import pytest
from sources import nodes

from tinymem.bench.unlearn import OPTIONS
from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.robustness import measure
from tinymem.recipe import paper
from tinymem.recipe.robustness import TESTS, Test
from tinymem.report.configurations import in_order
from tinymem.sweep.listing import paper_counts


def points(grid: dict[str, tuple[object, ...]]) -> int:
    return math.prod(map(len, grid.values()))


@pytest.mark.parametrize("method", paper.GRID)
def test_counts_are_those_of_the_registered_grids(method: str) -> None:
    assert points(UNLEARNERS.get(method).config.grid) == paper.GRID[method]


def test_counts_of_the_published_grids_and_after_the_exceptions() -> None:
    configs = [UNLEARNERS.get(method).config for method in paper.GRID]
    assert sum(points(config.published_grid or config.grid) for config in configs) == paper.PUBLISHED_GRID
    assert sum(paper.GRID.values()) == 170 and sum(paper.RUNS.values()) == 113_160
    text = paper_counts()
    for words in (
        "170 runs a checkpoint: 114,240 over its 672",
        "113,160 after",
        "840 of IG (5 at each of 168",
        "240 of Greedy",
        "of 72 of text",
    ):
        assert words in text
    assert "102,698 experiments, 10,462 fewer" in text and "167 runs a checkpoint (112,224 in all)" in text


def test_every_method_has_its_place_and_new_ones_follow() -> None:
    registered = UNLEARNERS.names()
    ordered = in_order([*registered, "zz-mine", "a-mine"])
    assert sorted(ordered) == sorted([*registered, "zz-mine", "a-mine"]) and ordered[-1] == "zz-mine"
    known = [name for name in ordered if name in paper.METHODS]
    assert ordered[: len(known)] == known and known == [name for name in paper.METHODS if name in registered]
    assert {*paper.GRID, *paper.FINETUNINGS} <= set(registered)


def test_benchmarks_time_the_papers_methods() -> None:
    assert set(OPTIONS) == set(paper.GRID)


def test_every_test_of_robustness_is_implemented_and_shown() -> None:
    assert tuple(measure._TESTS) == TESTS == get_args(Test)


ONLY_IN: dict[int | str, set[str]] = {
    **{number: {"recipe/paper.py"} for number in (paper.EXPERIMENTS, paper.CHECKPOINTS, paper.NODE_HOURS, paper.PUBLISHED_GRID)},
    "relearn-retain": {"recipe/robustness.py"},
    "balanced-subnet": {"recipe/paper.py", "recipe/localization.py"},  # scorers of weights
}


def values_of(node: ast.AST) -> list[ast.expr]:
    """Return what stands in a list, and a number wherever it stands."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return node.elts
    return [node] if isinstance(node, ast.Constant) and type(node.value) is int else []


@pytest.mark.slow
def test_lists_and_counts_are_written_once() -> None:
    """A second list of methods or tests would name the same members; tables by method (of costs, of timings) are no lists."""
    found: dict[int | str, set[str]] = {constant: set() for constant in ONLY_IN}
    for path, node in nodes():
        for member in values_of(node):
            if isinstance(member, ast.Constant) and type(member.value) in (int, str) and member.value in found:
                found[member.value].add(path)
    assert all(found[constant] <= places for constant, places in ONLY_IN.items()), found
