"""Dictionaries without types: planted ones are found in every disguise, typed ones are not, and the package has few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from untyped import Package, Resolver, Type, annotations

LIMIT = 20

HEAD = """
from __future__ import annotations
import collections.abc
import typing as t
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NewType, Optional, TypedDict, TypeVar, Union
import numpy as np
import planted.aliases
from planted import aliases as other
from planted.aliases import Fields, Line, Pairs
if TYPE_CHECKING:
    from torch.optim.optimizer import StateDict
    from library_that_is_nowhere import Thing
Row = dict[str, Any]
Rows = list[Row]
Text = dict[str, str]
Name = NewType("Name", dict[str, object])
T = TypeVar("T")
Bound = TypeVar("Bound", bound=Mapping[str, Any])
Tree = dict[str, "Tree"] | int
class Table(Generic[T]): ...
class Record(dict[str, Any]): ...
class Further(Record): Inner = Mapping[str, object]
class Typed(TypedDict):
    number: int
"""
ALIASES = """
from typing import Any, TypeVar
from planted.below import Cells as Fields
T = TypeVar("T")
Pairs = dict[str, T]
Line: "TypeAlias" = "tuple[Fields, ...]"
"""
UNTYPED = """
dict
dict[str, Any]
dict[str, object]
Mapping[str, Any]
t.Mapping[str, t.Any]
t.Dict[str, t.Any]
OrderedDict[str, Any]
collections.abc.MutableMapping[str, object]
dict[Any, Any]
dict[str, Any | None]
dict[str, Optional[object]]
Mapping
list[dict[str, Any]]
tuple[int, ...] | dict[str, Any]
Callable[[dict[str, Any]], int]
Callable[..., Row]
Optional[Row]
Union[int, Row]
type[Row]
Annotated[Row, 'words']
ClassVar[Row]
dict[str, dict[str, Any]]
'Row'
list['Row']
list[dict]
Row
Rows
Fields
Line
Pairs[Any]
Pairs[Row]
other.Fields
planted.aliases.Line
Name
Bound
StateDict
Table[Row]
Record
Further
Further.Inner
list[Thing[Row]]
""".strip().splitlines()
TYPED = """
int
dict[str, str]
dict[int, Any]
Text
list[Text]
Tree
Pairs[int]
Typed
Table[int]
Any
list[Any]
object
Literal['dict[str, Any]']
np.ndarray
Thing
Thing[int]
Callable[[Any], object]
Sequence[tuple[str, Any]]
None
""".strip().splitlines()


def package(folder: Path, body: str) -> Package:
    """A package `planted` with a module `use` of that body, and modules of aliases that it may import."""
    root = folder / "planted"
    root.mkdir()
    (root / "__init__.py").touch()
    (root / "below.py").write_text("from typing import Any\nCells = dict[str, Any]\n")
    (root / "aliases.py").write_text(ALIASES)
    (root / "use.py").write_text(HEAD + body)
    return Package(root)


def found(folder: Path, body: str) -> list[str]:
    """The annotations that are counted, as lines of the file."""
    return [module.path.read_text().splitlines()[annotation.lineno - 1].strip() for module, annotation in package(folder, body).untyped()]


@pytest.mark.parametrize("annotation", UNTYPED)
def test_an_untyped_dictionary_is_found(annotation: str, tmp_path: Path) -> None:
    assert found(tmp_path, f"variable: {annotation}\n") == [f"variable: {annotation}"]


@pytest.mark.parametrize("annotation", TYPED)
def test_typed_ones_are_not(annotation: str, tmp_path: Path) -> None:
    assert found(tmp_path, f"variable: {annotation}\n") == []


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("def f(a: Row, /, b: Row, *c: Row, d: Row = 1, **e: Row) -> Row: ...", 6),
        ("async def f(a, b: int, **kwargs: Any) -> Row: ...", 1),
        ("class C: a: Row = 1; b = 2", 1),
        ("def f():\n    from planted.aliases import Fields as Local\n    def g(a: Local) -> None: ...", 1),
        ("def f():\n    Own = dict[str, object]\n    a: Own = 1", 1),
        ("Alias = dict[str, Any]", 0),
    ],
)
def test_every_annotation_counts_once(line: str, count: int, tmp_path: Path) -> None:
    assert len(found(tmp_path, line + "\n")) == count


@pytest.mark.processes
def test_the_script_prints_places_and_a_sum(tmp_path: Path) -> None:
    package(tmp_path, "a: Row\nb: int\n")
    script = [sys.executable, ROOT / "tests" / "untyped.py", tmp_path / "planted", "-v"]
    lines = subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    line = 1 + len(HEAD.splitlines())
    assert lines == [f"{tmp_path}/planted/use.py:{line}: Row", "   1 planted.use", "   1 in all"]


@pytest.fixture(scope="module")
def every() -> Package:
    """Our own package."""
    return Package(ROOT / "tinymem")


@pytest.mark.slow
def test_the_package_has_few(every: Package) -> None:
    places = [f"{module.name}:{annotation.lineno}" for module, annotation in every.untyped()]
    assert len(places) <= LIMIT, "python tests/untyped.py -v lists them"


def everything_in(kind: Type) -> list[Type]:
    return [kind, *(inner for part in kind.parts for inner in everything_in(part))]


@pytest.mark.slow
def test_every_name_of_the_package_is_resolved(every: Package) -> None:
    """A name that nothing defines would hide what it stands for."""
    unknown = {
        kind.name
        for module in every.modules.values()
        for annotation in annotations(module.tree)
        for kind in everything_in(Resolver(every, module).resolve(annotation))
        if kind.name.isidentifier()
    }
    assert unknown <= {"None", "Ellipsis"}
