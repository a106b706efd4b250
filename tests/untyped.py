"""Counts the annotations that say nothing about their dictionary: those that resolve to a mapping of str to Any or object.

    python tests/untyped.py [-v] [FOLDER]

FOLDER is a package (tinymem of this checkout by default); -v lists each annotation with its place. Counted are arguments, returns,
variables and attributes, each once, whatever stands around the mapping (list, tuple, Callable, Optional, a type of the package, ...).
A bare `dict` is one of Any to Any and counts. Names are resolved from the syntax of the package's modules, none of which is imported:
aliases through any number of modules, classes derived from such a mapping, NewType, bounds of a TypeVar, strings, and imports for type
checkers or inside functions. Names of other libraries are looked up in the library where it is installed.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import sys
import types
import typing
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

DICTIONARIES = {
    *("builtins.dict", "collections.OrderedDict", "collections.defaultdict", "collections.ChainMap", "collections.UserDict"),
    *("collections.abc.Mapping", "collections.abc.MutableMapping", "types.MappingProxyType"),
    *(f"typing.{name}" for name in ("Dict", "Mapping", "MutableMapping", "OrderedDict", "DefaultDict", "ChainMap")),
}
ANYTHING = {"typing.Any", "builtins.object", "typing_extensions.Any"}
KEYS = {"builtins.str", *ANYTHING}
UNION = "|"


@dataclass(frozen=True)
class Type:
    """A resolved type: its qualified name, and the types that it is made of."""

    name: str
    parts: tuple[Type, ...] = ()

    def is_anything(self) -> bool:
        return self.name in ANYTHING or (self.name == UNION and any(part.is_anything() for part in self.parts))

    def is_untyped(self) -> bool:
        """Whether this is, or has somewhere in it, a mapping of str to Any or object."""
        if self.name in DICTIONARIES:
            key, value = self.parts if len(self.parts) == 2 else (Type("typing.Any"), Type("typing.Any"))
            if value.is_anything() and (key.name in KEYS or key.is_anything()):
                return True
        return any(part.is_untyped() for part in self.parts)


@dataclass
class Names:
    """What the names of a module or class body stand for."""

    expressions: dict[str, ast.expr] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The module, and the name in it; an empty name for the module itself."""

    def add(self, node: ast.AST) -> None:
        """Note what a statement defines; what was noted first holds."""
        if isinstance(node, ast.ClassDef):
            self.classes.setdefault(node.name, node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                self.imports.setdefault(alias.asname or alias.name, (node.module, alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                self.imports.setdefault(name, (alias.name if alias.asname else name, ""))
        else:
            self._add_alias(node)

    def _add_alias(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.expressions.setdefault(node.targets[0].id, node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.expressions.setdefault(node.target.id, node.value)
        elif type(node).__name__ == "TypeAlias":  # `type Row = ...`, from Python 3.12 on
            self.expressions.setdefault(node.name.id, node.value)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Module:
    """One file: its syntax, and what its names stand for."""

    name: str
    path: Path
    tree: ast.Module

    @cached_property
    def names(self) -> Names:
        found = Names()
        for node in [*self.tree.body, *ast.walk(self.tree)]:  # what stands at the top first
            found.add(node)
        return found


class Package:
    """The modules of a folder, read from their files."""

    def __init__(self, folder: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))

    def untyped(self) -> Iterator[tuple[Module, ast.expr]]:
        """Every annotation that resolves to, or around, a mapping of str to Any or object."""
        for module in self.modules.values():
            for annotation in annotations(module.tree):
                if Resolver(self, module).resolve(annotation).is_untyped():
                    yield module, annotation


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Annotations of arguments, returns, variables and attributes, anywhere in the tree."""
    for node in ast.walk(tree):
        found = node.returns if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else getattr(node, "annotation", None)
        if isinstance(found, ast.expr):
            yield found


@dataclass(frozen=True)
class Resolver:
    """Resolves expressions of one module; `seen` are the definitions that are being resolved, so that recursive types end."""

    package: Package
    module: Module
    seen: frozenset[tuple[str, str]] = frozenset()

    def resolve(self, node: ast.expr) -> Type:
        match node:
            case ast.Name(id=name):
                return self.named(name)
            case ast.Attribute(value=owner, attr=name):
                return self.attribute(owner, name)
            case ast.Subscript(value=origin, slice=inside):
                return self.applied(origin, inside.elts if isinstance(inside, ast.Tuple) else [inside])
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return Type(UNION, (self.resolve(left), self.resolve(right)))
            case ast.Constant(value=str(text)):
                return self.written(text)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return Type("", tuple(map(self.resolve, elements)))
            case ast.Call():
                return self.called(node)
            case ast.Starred(value=value):
                return self.resolve(value)
        return Type(ast.unparse(node))

    def named(self, name: str) -> Type:
        """A name of this module, of the module that it is imported from, or of Python."""
        names = self.module.names
        if (self.module.name, name) in self.seen:
            return Type(f"{self.module.name}.{name}")
        inner = Resolver(self.package, self.module, self.seen | {(self.module.name, name)})
        if name in names.classes:
            return inner.of_class(names.classes[name])
        if name in names.expressions and name not in names.imports:
            return inner.resolve(names.expressions[name])
        if name in names.imports:
            return inner.imported(*names.imports[name])
        return Type(f"builtins.{name}" if hasattr(builtins, name) else name)

    def of_class(self, node: ast.ClassDef) -> Type:
        """A class of the package; what it derives from belongs to it where that is a mapping."""
        bases = tuple(base for base in map(self.resolve, node.bases) if base.is_untyped())
        return Type(f"{self.module.name}.{node.name}", bases)

    def imported(self, module: str, name: str) -> Type:
        if module in self.package.modules:
            submodule = f"{module}.{name}"
            if submodule in self.package.modules:
                return Type(submodule)
            return Resolver(self.package, self.package.modules[module], self.seen).named(name) if name else Type(module)
        return of_library(module, name)

    def attribute(self, owner: ast.expr, name: str) -> Type:
        """`module.name` or `Class.name`."""
        whole = ast.unparse(owner)
        if whole in self.module.names.classes:
            body = Names()
            for node in self.module.names.classes[whole].body:
                body.add(node)
            if name in body.expressions:
                return self.resolve(body.expressions[name])
        module = self.module_of(owner)
        return self.imported(module, name) if module else Type(f"{whole}.{name}")

    def module_of(self, node: ast.expr) -> str:
        """The module that an expression stands for, or nothing."""
        if isinstance(node, ast.Attribute):
            above = self.module_of(node.value)
            return f"{above}.{node.attr}" if above else ""
        if isinstance(node, ast.Name) and node.id in self.module.names.imports:
            module, name = self.module.names.imports[node.id]
            whole = f"{module}.{name}" if name else module
            return whole if whole in self.package.modules or not name or is_module(whole) else ""
        return ""

    def applied(self, origin: ast.expr, inside: Sequence[ast.expr]) -> Type:
        """`origin[inside]`: a type with its parts; an alias with its type variables filled in."""
        base = self.resolve(origin)
        if base.name in ("typing.Literal", "typing_extensions.Literal"):
            return base
        parts = tuple(map(self.resolve, inside))
        if base.name in ("typing.Optional", "typing.Union"):
            return Type(UNION, parts)
        if base.name == "typing.Annotated":
            return parts[0]
        free = variables(base)
        if free:
            return filled(base, dict(zip(free, parts, strict=False)))
        return Type(base.name, (*base.parts, *parts))

    def called(self, node: ast.Call) -> Type:
        """NewType stands for what it is made of, a type variable for its bound."""
        function = self.resolve(node.func).name
        if function == "typing.NewType" and len(node.args) == 2:
            return self.resolve(node.args[1])
        if function in ("typing.TypeVar", "typing_extensions.TypeVar"):
            bounds = [word.value for word in node.keywords if word.arg in ("bound", "default")]
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            return Type(f"~{name}", tuple(map(self.resolve, bounds)))
        return Type(function)

    def written(self, text: str) -> Type:
        try:
            return self.resolve(ast.parse(text.strip(), mode="eval").body)
        except SyntaxError:
            return Type(repr(text))


def variables(kind: Type) -> list[str]:
    """Type variables within, in the order in which they first stand there."""
    own = [kind.name] if kind.name.startswith("~") else []
    return list(dict.fromkeys([*own, *(name for part in kind.parts for name in variables(part))]))


def filled(kind: Type, values: Mapping[str, Type]) -> Type:
    return values.get(kind.name) or Type(kind.name, tuple(filled(part, values) for part in kind.parts))


def is_module(name: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    except ImportError:
        return False
    return True


def of_library(module: str, name: str) -> Type:
    """A name of another library; under its own name where that library or name is not there."""
    whole = f"{module}.{name}"
    if module in ("typing", "typing_extensions", "collections", "collections.abc") or not name:
        return Type(whole.removesuffix("."))
    try:
        with warnings.catch_warnings(action="ignore"):
            return of_object(getattr(importlib.import_module(module), name), whole)
    except (ImportError, AttributeError):
        return Type(whole)


def of_object(value: object, name: str = "") -> Type:
    """The type that an object of a library stands for."""
    if isinstance(value, getattr(typing, "TypeAliasType", ())):
        return of_object(value.__value__, name)  # type: ignore[attr-defined]
    if isinstance(value, typing.NewType):
        return of_object(value.__supertype__, name)
    origin, parts = typing.get_origin(value), tuple(map(of_object, typing.get_args(value)))
    if origin in (typing.Union, types.UnionType):
        return Type(UNION, parts)
    if origin is not None and origin is not value:
        return Type(of_object(origin, name).name, parts)
    if isinstance(value, list | tuple):
        return Type("", tuple(map(of_object, value)))
    if isinstance(value, type):
        return Type(f"{value.__module__}.{value.__qualname__}")
    return Type("typing.Any" if value is typing.Any else name or repr(value))


def main() -> None:
    parser = argparse.ArgumentParser(description="Count annotations that resolve to a mapping of str to Any or object.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[1] / "tinymem", help="a package")
    parser.add_argument("-v", "--verbose", action="store_true", help="list each annotation")
    words = parser.parse_args()
    found = list(Package(words.folder.resolve()).untyped())
    if words.verbose:
        for module, annotation in found:
            print(f"{module.path}:{annotation.lineno}: {ast.unparse(annotation)}")
    for name, count in Counter(module.name for module, _ in found).most_common():
        print(f"{count:4} {name}")
    print(f"{len(found):4} in all")


if __name__ == "__main__":
    sys.exit(main())
