"""A registry of named objects whose modules are imported only when used.

Built-in methods are found by file name: dropping `my_method.py` into a scanned package registers `my-method`, without a table to edit.
Users add theirs with `--plugin my_method.py` or through an entry point.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.consent import agree

T = TypeVar("T")


class Registry(Generic[T]):
    """A map from names to objects of one kind; `get` imports the module that defines the object if need be."""

    def __init__(self, kind: str, *, packages: tuple[str, ...] = (), eager: tuple[str, ...] = (), entry_points: str | None = None) -> None:
        """Make an empty registry.

        Args:
            kind: a word for messages.
            packages: each module of these registers one object, under its own name with dashes, and is imported when that is used.
            eager: modules of these register any number of objects under any names; all are imported when the registry is first used.
            entry_points: group of entry points, by name.
        """
        self.kind = kind
        self._packages, self._eager = packages, list(eager)
        self._entry_points = entry_points
        self._objects: dict[str, T] = {}
        self._plugins: dict[str, Plugin] = {}
        self._lazy: dict[str, Callable[[], object]] | None = None

    def register(self, name: str, value: T) -> None:
        """Add `value` under `name`; a plugin that is only read leaves a name to the plugin that has it (`with_names_of`).

        Raises:
            UserError: the name is taken by another object, or is none that recipes and the command line can give.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(name)):
            raise UserError(f"expected letters, digits, '-', '_' and '.' as the name of a {self.kind}, got {name!r}; choose another name")
        load = self._found().get(name)
        if isinstance(load, partial) and name not in self._objects:
            load()  # a built-in of that name comes first (this does nothing while that very module is being read)
        known = self._objects.get(name)
        if known is not None and getattr(known, "origin", None) != getattr(value, "origin", None):
            if not (_loading and _loading[-1].only_read and name in self._plugins):
                raise UserError(f"{self.kind} '{name}' is registered already{self._by(name)}")
            _set_aside.setdefault(_loading[-1].plugin.sha256, []).append((self, name, value))
            return
        self._objects[name] = value
        self._plugins.pop(name, None)
        if _loading and getattr(value, "origin", "").startswith(f"{_loading[-1].plugin.path}:"):  # and not a module that it imports
            self._plugins[name] = _loading[-1].plugin
            if (self.kind, name) in _loading[-1].taken:
                raise UserError(f"{self.kind} '{name}' is registered twice in {_loading[-1].plugin.path}; choose another name")
            _loading[-1].taken.add((self.kind, name))

    def _by(self, name: str) -> str:
        """The end of the message about a taken name: which files take it, and what to try."""
        if not _loading or name not in self._plugins:
            return "; choose another name"
        return f" by {self._plugins[name].path}, and {_loading[-1].plugin.path} has it too; choose another name, or leave one of them out"

    def names(self) -> list[str]:
        """All registered names, sorted, without importing what is not imported yet."""
        self._import_eager()
        return sorted({*self._objects, *self._found()})

    def in_order(self, first: Sequence[str]) -> list[T]:
        """All objects: those of `first` in its order, as far as they are registered, then the others by name."""
        names = self.names()
        return [self.get(name) for name in (*(n for n in first if n in names), *(n for n in names if n not in first))]

    def get(self, name: str) -> T:
        """Look up the object of a name, importing its module if need be.

        Raises:
            UserError: no such name; the message suggests the closest.
        """
        self._import_eager()
        if name not in self._objects:
            load = self._found().get(name)
            if load is None:
                raise UserError(f"unknown {self.kind} '{name}'; {did_you_mean(name, self.names())}")
            load()
        if name not in self._objects:
            raise UserError(f"expected the module of {self.kind} '{name}' to register it, but it did not; add the decorator")
        return self._objects[name]

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """A context at whose end the registrations made within it are undone.

        Built-in objects and those of entry points stay: their modules are imported once, so they would not register again.
        """
        self._import_eager()
        before, plugins = dict(self._objects), dict(_plugins)
        try:
            yield
        finally:
            for sha256 in _plugins.keys() - plugins.keys():  # so that they run again, should they be loaded again
                del _plugins[sha256]
                _set_aside.pop(sha256, None)
            found = {name: value for name, value in self._objects.items() if name in self._found()}
            self._objects = {**found, **before}

    def _import_eager(self) -> None:
        while self._eager:
            for name in _modules(self._eager.pop()):
                importlib.import_module(name)

    def _found(self) -> dict[str, Callable[[], object]]:
        if self._lazy is None:
            self._lazy = {}
            for package in self._packages:
                for path in _modules(package):
                    self._lazy[path.rpartition(".")[2].replace("_", "-")] = partial(importlib.import_module, path)
            if self._entry_points:
                from importlib.metadata import entry_points  # imports the library email

                for entry in entry_points(group=self._entry_points):
                    self._lazy.setdefault(entry.name, entry.load)
        return self._lazy


def _modules(package: str) -> list[str]:
    """Full names of a package's public modules, without importing any."""
    spec = importlib.util.find_spec(package)
    found = pkgutil.iter_modules(spec.submodule_search_locations if spec else None)
    return [f"{package}.{module.name}" for module in found if not module.name.startswith("_")]


@dataclass(frozen=True)
class Plugin:
    """A user's file that was run: where it was first found, its content, and the hash of that."""

    path: Path
    content: bytes
    sha256: str


_plugins: dict[str, Plugin] = {}
"""The plugins that were run in this process, by their hash."""
_plugin_modules: dict[str, str] = {}
"""The hash of the plugin that each module is of."""


@dataclass(frozen=True)
class _Loading:
    """A plugin that is being run, with what it has registered; `only_read` if nothing but the recipe of a finished run needs it."""

    plugin: Plugin
    only_read: bool
    taken: set[tuple[str, str]] = field(default_factory=set)


_loading: list[_Loading] = []
_set_aside: dict[str, list[tuple[Registry[Any], str, Any]]] = {}
"""By a plugin's hash, what it registers under names that another plugin has: registry, name and object."""


def load_plugin(path: Path, *, only_read: bool = False) -> Plugin:
    """Run a user's Python file so that it can register its methods, metrics, artifacts, ...; the user agrees to it by naming it.

    A file of the same content as an earlier one, such as the copy in a run's folder, goes by the path of that one, so that both may be
    loaded.

    Args:
        path: of the file.
        only_read: the plugin is needed for the recipe of a finished run alone. A name that another plugin has, such as a later version
            of this one, stays with that.

    Raises:
        UserError: the file is missing or fails while it is read, or takes a name that another has.
    """
    if not path.is_file():
        raise UserError(f"expected a Python file for a plugin, found none at {path}; check the path")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    plugin = _plugins.get(sha256) or Plugin(path.resolve(), content, sha256)
    name = f"tinymem_plugin_{path.stem}_{sha256[:8]}"
    spec = importlib.util.spec_from_file_location(name, plugin.path)
    if spec is None:
        raise UserError(f"expected a .py file for a plugin, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _plugin_modules[name] = module, sha256
    _set_aside.pop(sha256, None)
    _loading.append(_Loading(plugin, only_read))
    try:
        exec(compile(content, str(plugin.path), "exec"), vars(module))
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"the plugin {path} failed while it was read: {type(error).__name__}: {error}") from error
    finally:
        _loading.pop()
    agree(sha256)
    return _plugins.setdefault(sha256, plugin)


def loaded_plugin(sha256: str, *, only_read: bool = True) -> Plugin | None:
    """The plugin with that content, if it was run in this process; unless `only_read`, only if all names that it takes are its own."""
    return None if sha256 in _set_aside and not only_read else _plugins.get(sha256)


@contextmanager
def with_names_of(hashes: Iterable[str]) -> Iterator[None]:
    """A context in which names mean what the plugins of these hashes register, also those that other plugins have."""
    theirs = [entry for sha256 in hashes for entry in _set_aside.get(sha256, ())]
    before = [(registry, name, registry._objects[name]) for registry, name, _ in theirs]
    for registry, name, value in theirs:
        registry._objects[name] = value
    try:
        yield
    finally:
        for registry, name, value in before:
            registry._objects[name] = value


def origin_of(value: Callable[..., object]) -> str:
    """File and name of a class or a function, that under its decorators: `torch.no_grad()` wraps functions in one of torch's."""
    inner = inspect.unwrap(value)
    return f"{inspect.getsourcefile(inner)}:{inner.__qualname__}"


def plugin_of(value: Callable[..., object]) -> Plugin | None:
    """The plugin that defines a class or a function; None for those of installed packages."""
    return _plugins.get(_plugin_modules.get(value.__module__, ""))


def place_in_plugin(error: BaseException) -> str | None:
    """Where an error comes out of a user's file, or of what that has called: `mine.py, line 7`; None: it does not."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals.get("__name__") in _plugin_modules]
    return f"{Path(frames[-1][0].f_code.co_filename).name}, line {frames[-1][1]}" if frames else None
