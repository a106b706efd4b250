"""Recipes as plain dictionaries, before they are checked: read from YAML, and changed by `key.sub=value`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tinymem.errors import UserError
from tinymem.runtime.json import Json, JsonObject

MERGE = "tag:yaml.org,2002:merge"


class WrittenInt(int):
    """A whole number that YAML read from another text than its digits: `0100` (64), `0x41` (65), `12:30` (750), `1_000`."""

    written: str

    def __new__(cls, value: int, written: str) -> WrittenInt:
        found = super().__new__(cls, value)
        found.written = written
        return found

    def __reduce__(self) -> tuple[type[WrittenInt], tuple[int, str]]:
        return WrittenInt, (int(self), self.written)


def read_values(path: Path) -> JsonObject:
    """The values of a YAML file.

    Raises:
        UserError: file missing, not YAML, a key twice in one section, or no `key: value` lines.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"expected a recipe at {path}, found none; try one of recipes/*.yaml") from None
    except IsADirectoryError:
        inside = path / "recipe.yaml"
        advice = f"try {inside}" if inside.is_file() else "name a .yaml file in it"
        raise UserError(f"expected a recipe file, got the folder {path}; {advice}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"expected YAML in {path}: {_reason(error)}") from None
    if values is None:  # all defaults would train the paper's largest math corpus for hours, with nothing to memorize in it
        raise UserError(f"expected `key: value` lines in {path}, got an empty file; `tinymem init` or `init sweep` writes one")
    if not isinstance(values, dict):
        raise UserError(f"expected `key: value` lines in {path}, got {type(values).__name__}")
    return values


def _reason(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong and in which line, in one line: without the name that YAML gives to all text, and its pointers to columns."""
    return " ".join(word for word in str(error).replace('in "<unicode string>", line', "in line").split() if word != "^")


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses repeated keys, of which the plain loader silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A section as it is written; keys merged by `<<` may be overridden."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"key '{key.value}' stands twice in one section", key.start_mark)
                seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number that remembers how it is written, unless its digits tell."""
        value: int = super().construct_yaml_int(node)
        return value if str(value) == node.value else WrittenInt(value, str(node.value))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_override(override: str) -> tuple[str, Json]:
    """Parse an override: `a.b=c` -> ("a.b", c).

    Raises:
        UserError: no `=`, or a value that is not YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"expected --set key.sub=value, got '{override}'")
    try:
        return key, yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError(f"expected a YAML value after '=', got '{override}'") from None


def overridden(values: JsonObject, overrides: Iterable[str] | None) -> JsonObject:
    """The values, changed in place by `key.sub=value` overrides.

    Raises:
        UserError: an override that is none, or a key on the way that holds a value.
    """
    for override in overrides or ():
        set_value(values, *parse_override(override))
    return values


def set_value(values: JsonObject, key: str, value: Json) -> None:
    """Set the value of a dotted key; missing sections on the way are made.

    Raises:
        UserError: a key on the way holds a value, not a section.
    """
    node: Any = values
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = _entry(node, part, key)
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: '{part}' holds a value, not a section")
    if isinstance(node, list):
        index = _index(node, last, key)
        node[index] = {last: value} if _is_short(node[index], last) else value
    else:
        node[last] = value


def _entry(items: list[Any], part: str, key: str) -> Any:
    """The options of an entry of a list, which a bare name, as in `methods: [act]`, gets here."""
    index = _index(items, part, key)
    if not _is_short(items[index], part):
        return items[index]
    if not isinstance(items[index], dict) or items[index][part] is None:
        items[index] = {part: {}}
    return items[index][part]


def _is_short(item: Any, name: str) -> bool:
    """Whether an entry of a list is a name, or a name with its options: `act`, `act: {ratio: 0.1}`."""
    return item == name or (isinstance(item, dict) and list(item) == [name])


def _index(items: list[Any], part: str, key: str) -> int:
    """Index of an entry of a list, by position or name: artifacts.0.rows, artifacts.noise.rows, mitigation.methods.act.ratio."""
    for index, item in enumerate(items):
        named = _is_short(item, part) or (isinstance(item, dict) and part in (item.get("kind"), item.get("name")))
        if named or part == str(index):
            return index
    raise UserError(f"--set {key}: no entry '{part}' in a list of {len(items)}")
