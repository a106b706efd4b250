"""The `plugins:` of a recipe: Python files that register kinds of their own, which are loaded before the rest is checked.

    plugins: [my_artifact.py, ../shared/my_metric.py]     # relative to the recipe's file

The content of each file is part of the run's id. A run's folder has copies of them under `plugins/`, and the resolved recipe there names
each with its hash; a copy that was changed is refused. A plugin can do anything that its user can. So one that lies in the folder of a run
is run only if the user has run that very content before, in a recipe of theirs or by --plugin: who is given a run or a checkpoint reads its
plugins, and then names them with --plugin.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from tinymem.errors import UserError
from tinymem.recipe.data import Section
from tinymem.registry import Plugin, load_plugin, loaded_plugin
from tinymem.runtime.consent import agreed
from tinymem.runtime.files import file_sha256, user_path, write_bytes
from tinymem.runtime.json import Json, JsonObject

FOLDER = "plugins"


class PluginFile(Section):
    """A plugin in a resolved recipe: the place of its copy in the run's folder, and the hash of its content."""

    file: str = Field(pattern=r"^plugins/[^/\\]+$")  # never a path that leads elsewhere: it may come from a downloaded checkpoint
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @staticmethod
    def of(plugin: Plugin) -> PluginFile:
        """A loaded plugin as the resolved recipe names it."""
        return PluginFile(file=f"{FOLDER}/{plugin.path.name}", sha256=plugin.sha256)


def with_plugins(values: JsonObject, folder: Path, *, only_read: bool = False) -> JsonObject:
    """Load the plugins of a recipe's values, and name each by its place in a run's folder and its hash.

    Args:
        values: of a recipe, before they are checked.
        folder: of the recipe's file, to which paths are relative.
        only_read: of a recipe that is read and not run (`registry.load_plugin`).

    Raises:
        UserError: a file that is missing, fails, or differs from its hash.
    """
    given = values.get("plugins")
    if not given:
        return values
    entries = given if isinstance(given, list) else [given]
    return {**values, "plugins": [file.model_dump() for file in distinct(_loaded(entry, folder, only_read) for entry in entries)]}


def stored(values: JsonObject) -> JsonObject:
    """The values of a resolved recipe in a run's folder or checkpoint, once it is seen that they name no file but copies of plugins.

    Raises:
        UserError: a plugin by its path, which a recipe that the user names may have, but none that comes with a model.
    """
    given = values.get("plugins") or []
    if paths := [entry for entry in (given if isinstance(given, list) else [given]) if not isinstance(entry, dict)]:
        raise UserError(f"expected the plugins of a stored recipe by file and hash, got {str(paths[0])[:60]!r}; it was changed by hand")
    return values


def distinct(files: Iterable[PluginFile]) -> list[PluginFile]:
    """The files, each content once.

    Raises:
        UserError: two of one name, of which a run's folder can hold one.
    """
    found = {file.sha256: file for file in files}
    names = [file.file for file in found.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"expected plugins of different names, got two {Path(twice).name}; rename one")
    return list(found.values())


def store_plugins(files: Iterable[PluginFile], folder: Path) -> list[Path]:
    """Write copies of loaded plugins into a run's or sweep's folder; returns their paths.

    Raises:
        UserError: the disk is full.
    """
    paths = []
    for file in files:
        plugin, path = loaded_plugin(file.sha256), folder / file.file
        assert plugin is not None
        if not path.is_file() or path.read_bytes() != plugin.content:
            write_bytes(path, plugin.content)
        paths.append(path)
    return paths


def _loaded(entry: Json, folder: Path, only_read: bool) -> PluginFile:
    if isinstance(entry, str):
        return PluginFile.of(_load(folder / user_path(entry)))
    try:
        file = PluginFile.model_validate(entry)
    except ValidationError:
        raise UserError(f"expected plugins to be Python files, as in [my_metric.py], got {entry!r}") from None
    return PluginFile.of(loaded_plugin(file.sha256, only_read=only_read) or _load_copy(folder / file.file, file.sha256, only_read))


def _load(path: Path) -> Plugin:
    """The plugin in a file, which runs unless a file of the same content did."""
    found = file_sha256(path) if path.is_file() else ""
    return loaded_plugin(found, only_read=False) or load_plugin(path)


def _load_copy(path: Path, sha256: str, only_read: bool) -> Plugin:
    """The plugin in the folder of a run, if it is unchanged and the user has agreed to run it."""
    if not path.is_file():
        raise UserError(f"expected a copy of the recipe's plugin at {path}, found none; give the file with --plugin")
    if file_sha256(path) != sha256:
        raise UserError(f"expected {path} as the run was made with it (SHA-256 {sha256[:12]}), found it changed; put the old file back")
    if not agreed(sha256):
        raise UserError(f"expected your consent to run {path}, which can do anything that you can; read it, then give --plugin {path}")
    return load_plugin(path, only_read=only_read)
