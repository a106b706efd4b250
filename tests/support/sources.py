"""The package's modules as syntax trees, parsed once for all tests that look for what is written where."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import tinymem

PACKAGE = Path(tinymem.__file__).parent


@cache
def trees() -> dict[str, ast.Module]:
    """Parse each module, by its path in the package; nobody may change the trees."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def nodes() -> tuple[tuple[str, ast.AST], ...]:
    """List every node of every module, with the module's path."""
    return tuple((path, node) for path, tree in trees().items() for node in ast.walk(tree))
