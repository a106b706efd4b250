"""Errors of a recipe in one line: the key, the expected and the actual value, and the closest known key."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, TypeVar, Union

from pydantic import ValidationError

from tinymem.errors import UserError, did_you_mean
from tinymem.recipe.data import Section
from tinymem.recipe.kinds import KindSection
from tinymem.runtime.json import JsonObject

DATA_KINDS = ("math", "wiki")
SHOWN = 200  # characters of a wrong value


S = TypeVar("S", bound=Section)


def validated(root: type[S], values: JsonObject) -> S:
    """The values as a section.

    Raises:
        UserError: one line that names the first wrong key or value.
    """
    try:
        return root.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, root)) from None


def explain(error: ValidationError, root: type[Section]) -> str:
    """One line for the first thing that is wrong with the values of `root`."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(part for i, part in enumerate(place) if not _is_kind(i, place)) or "recipe"
    if first["type"] == "extra_forbidden":
        section = _section_at(place[:-1], root)
        return f"unknown key '{name}'; {did_you_mean(place[-1], section.model_fields if section else ())}"
    if first["type"] == "union_tag_invalid":
        return f"expected {name}.kind to be one of {first['ctx']['expected_tags']}, got '{first['ctx']['tag']}'"
    if first["type"] == "kind_missing":
        kind = "goldfish" if "regularizers" in place else "noise"
        return f"expected {name}.kind, as in `kind: {kind}`, got {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"recipe key '{name}': {message[0].lower()}{message[1:]}, got {_short(repr(first['input']))}"


def _is_kind(i: int, place: list[str]) -> bool:
    """Whether a part of a path is no key, but the kind of section that was recognized."""
    return " " in place[i] or (i == 1 and place[0] == "data" and place[i] in DATA_KINDS)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _section_at(place: list[str], root: type[Section]) -> type[Section] | None:
    """The section that a path of keys leads to; where a list or union holds several kinds, the path names the kind."""
    sections = [root]
    for part in place:
        annotations = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        if annotations:
            sections = [s for annotation in annotations for s in _sections(annotation)]
        else:
            sections = [found for s in sections if (found := _kind(s, part))] or sections
    return sections[0] if sections else None


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (Annotated, tuple, list, Union, types.UnionType):
        return [s for argument in typing.get_args(annotation) for s in _sections(argument)]
    return []


def _kind(section: type[Section], name: str) -> type[Section] | None:
    """The section itself where its `kind` has the name; of a list with a registry of kinds, the registered class."""
    if issubclass(section, KindSection) and "registry" in vars(section):
        return section.registry.get(name) if name in section.registry.names() else None
    if vars(section).get("TAG") == name:
        return section
    field = section.model_fields.get("kind")
    return section if field and name in typing.get_args(field.annotation) else None
