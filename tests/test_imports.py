"""The layers of design.md: a module imports from its own layer or from those below, inside functions too."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest
from helpers import ROOT

import tinymem

PACKAGE = ROOT / "tinymem"
# From the bottom up; a name stands for the module or package tinymem.<name>.
LAYERS = (
    ("errors",),
    ("files", "registry", "progress", "device", "signals", "mps"),
    ("recipe", "data", "models"),
    ("evaluation",),
    ("training",),
    ("mitigation",),
    ("testing",),
    ("localization",),
    ("zoo",),
    ("sweep",),
    ("report",),
    ("hub",),
    ("pipeline",),
    ("job_progress", "jobs"),
    ("bench",),
    ("cli", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Within the third layer too there is one direction.
THIRD = {"recipe": 0, "data": 1, "models": 2}


def part_of(module: str) -> str:
    """`tinymem.data.rows` -> data; `tinymem.recipe_data` -> recipe and `tinymem.cli_data` -> cli, which they are parts of."""
    part = module.split(".")[1] if "." in module else ""
    return next((whole for whole in ("recipe", "cli") if part.startswith(f"{whole}_")), part)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree: ast.AST, module: str) -> set[str]:
    """Modules of this package that are imported anywhere in a module, other than for type checkers."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if only_for_types(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they point"
            found |= {f"{node.module}.{alias.name}" if node.module == "tinymem" else str(node.module) for alias in node.names}
        found |= imports(node, module)
    return {name for name in found if name.startswith("tinymem.")}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = name_of(path)
    own = part_of(module)
    assert own == "" or own in LEVEL, f"say in LAYERS where {module} stands"
    for target in imports(ast.parse(path.read_text(encoding="utf-8")), module):
        part = part_of(target)
        if part == "__version__" or (own == "" and module == "tinymem"):
            continue
        assert part in LEVEL, f"{module} imports {target}: say in LAYERS where it stands"
        assert LEVEL[part] <= LEVEL[own], f"{module} imports {target}, which stands above it"
        assert THIRD.get(part, -1) <= THIRD.get(own, 9), f"{module} imports {target}, which stands above it"


def test_a_wrong_direction_is_found() -> None:
    source = "def f():\n    if True:\n        from tinymem.mitigation.frame import apply\n"
    assert imports(ast.parse(source), "tinymem.data.rows") == {"tinymem.mitigation.frame"}
    assert LEVEL["mitigation"] > LEVEL["data"]
    assert imports(ast.parse("if TYPE_CHECKING:\n    from tinymem.cli import app"), "tinymem.data.rows") == set()


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
