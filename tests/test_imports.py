"""The layers of docs/architecture.md: a room imports from itself and from rooms below, inside functions and for types too."""

from __future__ import annotations

import ast
import socket
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT
from sources import PACKAGE, trees

import tinymem

# From the bottom up. A name is a folder of the package (a room) or one of its five modules; rooms of one line do not know each other.
LAYERS = (
    ("errors",),
    ("runtime",),
    ("registry",),
    ("recipe",),
    ("data",),
    ("models",),
    ("hub",),
    ("results",),
    ("evaluation",),
    ("training",),
    ("mitigation",),
    ("testing", "localization", "sweep"),
    ("report",),
    ("runs",),
    ("zoo", "bench"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TOP = {"__init__", "__main__", "errors", "registry", "testing"}


def part_of(module: str) -> str:
    """`tinymem.data.rows` -> data, `tinymem.errors` -> errors, `tinymem` -> nothing."""
    return module.split(".")[1] if "." in module else ""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, known: Collection[str]) -> set[str]:
    """Modules of this package that a module imports anywhere in it, inside functions and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they point"
            paths = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {path if path in known else str(node.module) for path in paths}
    return {name for name in found if name.startswith("tinymem.")}


@cache
def graph() -> dict[str, set[str]]:
    """Every module of the package with those that it imports."""
    paths = {name_of(path): path for path in modules()}
    parsed = trees()
    return {name: imports(parsed[path.relative_to(PACKAGE).as_posix()], name, paths) - {name} for name, path in paths.items()}


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A circle of imports, or nothing."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        found = next((c for target in sorted(arrows.get(name, ())) if (c := visit(target, [*trail, name]))), [])
        done.add(name)
        return found

    return next((c for name in arrows if (c := visit(name, []))), [])


def test_the_top_of_the_package_holds_five_modules() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


def test_every_room_has_a_layer() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms | TOP - {"__init__"} == set(LEVEL), "say in LAYERS where a new folder stands"


@pytest.mark.slow
def test_imports_point_one_way() -> None:
    arrows = [(module, target) for module, targets in sorted(graph().items()) if part_of(module) for target in targets]
    parts = [(part_of(module), part_of(target)) for module, target in arrows]
    wrong = [arrow for arrow, (own, part) in zip(arrows, parts, strict=True) if part != own and LEVEL[part] >= LEVEL[own]]
    assert len(arrows) > 500 and not wrong, "a module imports another, which does not stand below it"


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circle(graph()) == []


def test_a_wrong_direction_and_a_circle_are_found() -> None:
    source = "def f():\n    if True:\n        from tinymem.mitigation.method import apply\n"
    assert imports(ast.parse(source), "tinymem.data.rows", ()) == {"tinymem.mitigation.method"}
    assert LEVEL["mitigation"] > LEVEL["data"]
    typed = "if TYPE_CHECKING:\n    from tinymem.cli import main"
    assert imports(ast.parse(typed), "tinymem.data.rows", {"tinymem.cli.main"}) == {"tinymem.cli.main"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_public_name_is_there() -> None:
    missing = []
    for name in tinymem.__all__:
        try:
            getattr(tinymem, name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing
    assert set(dir(tinymem)) == set(tinymem.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = tinymem.nothing_like_it


def test_these_tests_reach_no_other_host() -> None:
    for address in (("192.0.2.1", 80), ("example.org", 443)):
        with pytest.raises(AssertionError, match="without network"):
            socket.create_connection(address, timeout=0.1)
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname(), timeout=5).close()
    server.close()
