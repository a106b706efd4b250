"""The shape of the package's code: short functions, files that fit a reader's head, and few types waved through."""

from __future__ import annotations

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

LINES_OF_A_FILE = 350
MEDIAN_LINES, TENTH_LONGEST_LINES = 8, 20  # of a function, from `def` to its last line, docstring included
TYPE_IGNORES = 20


@cache
def sources() -> dict[Path, str]:
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted((ROOT / "tinymem").rglob("*.py"))}


def lengths(source: str) -> list[int]:
    """Lines of every function and method, nested ones too."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.end_lineno or 0) - node.lineno + 1 for node in functions]


def type_ignores(source: str) -> int:
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT]
    return sum("type: ignore" in comment for comment in comments)


def at(share: float, numbers: list[int]) -> int:
    """The number below which that share of all numbers is."""
    return sorted(numbers)[int(len(numbers) * share)]


def test_measures_by_hand() -> None:
    source = 'def f(a):\n    """Nothing."""\n    def g():\n        return 1  # type: ignore[x]\n    return "# type: ignore"\nx = 1\n'
    assert sorted(lengths(source)) == [2, 5] and type_ignores(source) == 1
    assert at(0.5, [3, 1, 2]) == 2 and at(0.9, list(range(10))) == 9


def test_no_file_is_long() -> None:
    assert {path: len(text.splitlines()) for path, text in sources().items() if len(text.splitlines()) > LINES_OF_A_FILE} == {}


@pytest.mark.slow
def test_functions_are_short() -> None:
    every = [length for text in sources().values() for length in lengths(text)]
    assert len(every) > 1000
    assert at(0.5, every) <= MEDIAN_LINES and at(0.9, every) <= TENTH_LONGEST_LINES


@pytest.mark.slow
def test_few_types_are_ignored() -> None:
    found = {path: count for path, text in sources().items() if (count := type_ignores(text))}
    assert sum(found.values()) <= TYPE_IGNORES, found
