"""The keys of recipes with type, default, range and meaning, as the models themselves have them."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from tinymem.errors import UserError, did_you_mean
from tinymem.recipe.classification import ClassificationRecipe
from tinymem.recipe.data import Section
from tinymem.recipe.kinds import KindSection
from tinymem.recipe.layers import LayersRecipe
from tinymem.recipe.localization import LocalizationRecipe
from tinymem.recipe.method import Method
from tinymem.recipe.plugins import PluginFile
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import SweepRecipe
from tinymem.runtime.json import Json, JsonObject

ROOTS: tuple[tuple[type[Section], str], ...] = (
    (Recipe, "recipe"), (SweepRecipe, "sweep"), (LocalizationRecipe, "localize"), (LayersRecipe, "localize by layer"),
    (ClassificationRecipe, "localize in classifiers"),
)  # fmt: skip
WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    type(None): "null",
    dict: "keys and values",
}
WRITTEN: dict[type[Section], str] = {Method: "method", PluginFile: "file"}  # sections that are written as a name
POWERS = {2**53: "2^53", 2**31 - 1: "2^31 - 1", 2**32 - 1: "2^32 - 1"}


@dataclass(frozen=True)
class Key:
    """One key of a recipe."""

    group: str
    """Section that it is in: `training`, `data, kind: wiki`, `artifacts: noise`, `sweep: limits`."""
    key: str
    """Name as --set takes it, `training.epochs`; options of a kind stand below its name: `artifacts.noise.rows`."""
    type: str
    default: Json
    required: bool
    range: str
    about: str

    def as_json(self) -> JsonObject:
        """The key as a JSON object."""
        return dict(vars(self))

    @property
    def name(self) -> str:
        """The last part of the key, which its group leads to."""
        return self.key.rpartition(".")[2]

    @property
    def default_text(self) -> str:
        """The default as YAML and JSON write it; `required` where there is none, nothing for a kind."""
        if self.type == "section":
            return ""
        return "required" if self.required else json.dumps(self.default, ensure_ascii=False)


MATRIX = Key("recipe", "matrix", "keys and their values", None, False, "", "Many runs that differ in some keys, one for each combination.")


def recipe_keys(name: str | None = None) -> list[Key]:
    """Every key of recipes and of sweeps' recipes, in the order of the models; of one section, kind or key where a name is given.

    Raises:
        UserError: nothing has that name.
    """
    every = [key for root, title in ROOTS for key in _keys(root, "", title)]
    every.insert(next(i for i, key in enumerate(every) if key.group != "recipe"), MATRIX)
    if name is None:
        return every
    found = [key for key in every if f".{name}." in f".{key.key}." or name in re.findall(r"[\w-]+", key.group)]
    if not found:
        known = {part for key in every for part in (key.key, *key.key.split("."), *re.findall(r"[\w-]+", key.group))}
        raise UserError(f"no key or section of recipes is named '{name}'; {_near(name, known)}")
    return found


def _near(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    return near if near.startswith("did") else "`tinymem recipe keys` lists all"


def _keys(section: type[Section], prefix: str, group: str) -> Iterator[Key]:
    """The section's own keys, then those of the sections below it."""
    fields = {name: field for name, field in section.model_fields.items() if not (issubclass(section, KindSection) and name == "kind")}
    for name, field in fields.items():
        if not _is_whole(field):
            yield _key(f"{prefix}{name}", field, group)
    for name, field in fields.items():
        yield from _below(name, f"{prefix}{name}.", field, group)


def _is_whole(field: FieldInfo) -> bool:
    """Whether a field is one section, always there, whose keys say everything."""
    return bool(_sections(field.annotation)) and _list_of(field.annotation) is None and type(None) not in typing.get_args(field.annotation)


def _below(name: str, prefix: str, field: FieldInfo, group: str) -> Iterator[Key]:
    parent = "" if group == "recipe" else f"{group.partition(':')[0]}: " if group.startswith("sweep") else f"{group}."
    for section in _sections(field.annotation):
        if issubclass(section, KindSection):
            for kind in section.registry.names():
                found = section.registry.get(kind)
                about = _sentence(inspect.getdoc(found) or "")
                title = f"{parent}{name}: {kind}"
                yield Key(title, f"{prefix}{kind}", "section", None, False, "", about)
                yield from _keys(found, f"{prefix}{kind}.", title)
        elif section not in WRITTEN:
            kind_field = section.model_fields.get("kind")
            yield from _keys(section, prefix, f"{parent}{name}" + (f", kind: {kind_field.default}" if kind_field else ""))


def _key(name: str, field: FieldInfo, group: str) -> Key:
    required = field.is_required()
    default = None if required else to_jsonable_python(field.get_default(call_default_factory=True))
    annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    limits = "; ".join(dict.fromkeys(_limits(annotation)))
    return Key(group, name, _type_of(field.annotation), default, required, limits, _sentence(field.description or ""))


def _sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split()).rstrip(".")
    is_word = first.partition(" ")[0].rstrip(",").isalpha()  # neither a file's name nor a value: "paper: ..."
    return f"{first[:1].upper() if is_word else first[:1]}{first[1:]}." if first else ""


def _type_of(annotation: Any) -> str:
    """A type in words: `whole number`, `additive or multiplicative`, `list of numbers or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_of(arguments[0])
    if origin is Literal:
        return " or ".join(json.dumps(value) if isinstance(value, int) else str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_of(argument) for argument in arguments))
    if (item := _list_of(annotation)) is not None:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_plural(_type_of(item))}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return WRITTEN.get(annotation, "section")
    return WORDS[origin or annotation]


def _plural(words: str) -> str:
    return words if " or " in words else f"{words}s"


def _list_of(annotation: Any) -> Any:
    """What a list or tuple holds; None for another type."""
    if typing.get_origin(annotation) is Annotated:
        return _list_of(typing.get_args(annotation)[0])
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) in (tuple, list) else None


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections in a type."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in typing.get_args(annotation) for section in _sections(argument)]


def _limits(annotation: Any, each: str = "") -> Iterator[str]:
    """Limits of a type and of what it holds, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        metadata = [part for item in arguments[1:] for part in (item.metadata if isinstance(item, FieldInfo) else (item,))]
        if text := _limits_of(metadata, holds=_list_of(arguments[0]) is not None):
            yield each + text
        yield from _limits(arguments[0], each)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _limits(argument, each)
    elif origin in (tuple, list):
        yield from _limits(arguments[0], "each ")


def _limits_of(metadata: Sequence[Any], *, holds: bool) -> str:
    found = {name: value for part in metadata for name in ("ge", "gt", "le", "lt", "min_length", "pattern")
             if (value := getattr(part, name, None)) is not None}  # fmt: skip
    parts = []
    if "ge" in found and "le" in found:
        parts.append(f"{_number(found.pop('ge'))} to {_number(found.pop('le'))}")
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "pattern": "like"}
    parts += [f"{words[name]} {_number(value)}" for name, value in found.items() if name in words]
    if "min_length" in found:
        unit = "entries" if holds else "characters"
        parts.append(f"at least {found['min_length']} {unit}" if found["min_length"] > 1 else "not empty")
    return ", ".join(parts)


def _number(value: Any) -> str:
    return POWERS.get(value) or (f"{value:g}" if isinstance(value, float) else str(value))
