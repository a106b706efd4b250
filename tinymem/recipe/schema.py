"""A JSON schema of recipes, for editors: the models' own, with the short forms that a recipe may be written in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from tinymem.recipe.classification import ClassificationRecipe
from tinymem.recipe.data import Section
from tinymem.recipe.kinds import ARTIFACTS, REGULARIZERS
from tinymem.recipe.layers import LayersRecipe
from tinymem.recipe.localization import LocalizationRecipe
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import SEARCHES, SweepRecipe
from tinymem.registry import Registry
from tinymem.runtime.json import Json, JsonObject

Kind = Literal["run", "sweep", "localization", "layers", "classes"]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
ANYTHING: JsonObject = {"type": "object"}
TEXT: JsonObject = {"type": "string"}
WORDS: dict[str, JsonObject] = {"robustness": {"type": "boolean"}, "search": {"enum": list(SEARCHES)}}
"""Sections that a word may stand for."""
MATRIX: JsonObject = {
    "description": "many runs, one for each combination of these keys' values",
    "type": "object",
    "additionalProperties": {
        "anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "additionalProperties": {"type": ["object", "null"]}}]
    },
}


ROOTS: dict[Kind, type[Section]] = {
    "run": Recipe, "sweep": SweepRecipe, "localization": LocalizationRecipe, "layers": LayersRecipe,
    "classes": ClassificationRecipe,
}  # fmt: skip


def recipe_schema(kind: Kind = "run") -> JsonObject:
    """The schema of recipes of runs, sweeps or localization, with all registered kinds of artifacts and regularizers."""
    schema = ROOTS[kind].model_json_schema()
    definitions, properties = _object(schema["$defs"]), _object(schema["properties"])
    for name, section in definitions.items():
        _short_forms(name, _object(_object(section).get("properties", {})))
    _short_forms(str(schema["title"]), properties)
    if kind == "run":
        training = _object(_object(definitions["Training"])["properties"])
        for section, key, registry in ((properties, "artifacts", ARTIFACTS), (training, "regularizers", REGULARIZERS)):
            section[key] = {"description": _object(section[key])["description"], **_kinds(registry, definitions)}
        properties |= {"matrix": MATRIX, "data": _data(_object(properties["data"]), definitions)}
    return {"$schema": DRAFT, **_without_titles(schema)}


def _object(value: Json) -> JsonObject:
    """A part of a schema that is an object."""
    assert isinstance(value, dict)
    return value


def _short_forms(section: str, properties: JsonObject) -> None:
    """Let the keys of a section be written as briefly as its validators accept."""
    for name, value in [(name, _object(value)) for name, value in properties.items()]:
        if name == "methods":
            value |= _several(_named({"anyOf": [ANYTHING, {"type": "null"}]}), {"$ref": "#/$defs/Method"}, value)
        elif name == "plugins":
            value |= _several(TEXT, ANYTHING, value)
        elif name in WORDS:
            forms = value["anyOf"]
            assert isinstance(forms, list)
            value["anyOf"] = [WORDS[name], *forms]
        elif section == "SweepRecipe" and name == "models":
            value |= _several({"$ref": "#/$defs/NamedModel"}, {"$ref": "#/$defs/ModelMatrix"}, value)
        elif name in ("metrics", "checkpoints"):
            properties[name] = {**{k: v for k, v in value.items() if k in ("description", "default")}, "anyOf": [TEXT, _bare(value)]}


def _bare(value: JsonObject) -> JsonObject:
    return {key: part for key, part in value.items() if key not in ("description", "default", "title")}


def _several(short: JsonObject, whole: JsonObject, value: JsonObject) -> JsonObject:
    """One entry as a name, or a list of them; the value's own type and entries are dropped."""
    for key in ("type", "items"):
        value.pop(key, None)
    return {"anyOf": [TEXT, short, {"type": "array", "items": {"anyOf": [TEXT, short, whole]}}]}


def _named(options: JsonObject) -> JsonObject:
    """Names with their options: `act: {ratio: 0.1}`."""
    return {"type": "object", "additionalProperties": options}


def _kinds(registry: Registry[Any], definitions: JsonObject) -> JsonObject:
    """A list of kinds, in all forms of `kinds.short_kinds`; adds the kinds to the definitions."""
    for name in registry.names():
        found = registry.get(name).model_json_schema()
        definitions.update(found.pop("$defs", {}))
        options = {key: value for key, value in found["properties"].items() if key != "kind"}
        definitions[f"{name} options"] = {**found, "properties": options, "type": ["object", "null"]}
        definitions[name] = {**found, "required": [*found.get("required", ()), "kind"]}
    names: list[Any] = registry.names()
    short: JsonObject = {
        "type": "object",
        "properties": {name: {"$ref": f"#/$defs/{name} options"} for name in registry.names()},
        "additionalProperties": False,
    }
    word: JsonObject = {"enum": names}
    entries: list[Any] = [word, {**short, "maxProperties": 1}, *({"$ref": f"#/$defs/{name}"} for name in registry.names())]
    return {"anyOf": [word, short, {"type": "array", "items": {"anyOf": entries}}]}


def _data(value: JsonObject, definitions: JsonObject) -> JsonObject:
    """Math data, whose `kind` may be left out, or text."""
    _object(definitions["WikiData"])["required"] = ["kind"]
    return {"description": value["description"], "anyOf": [{"$ref": "#/$defs/MathData"}, {"$ref": "#/$defs/WikiData"}]}


def _without_titles(value: Any) -> Any:
    """A schema without pydantic's titles, which repeat the keys."""
    if isinstance(value, dict):
        return dict(_kept(value))
    return [_without_titles(item) for item in value] if isinstance(value, list) else value


def _kept(value: JsonObject) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if not (key == "title" and isinstance(part, str)):
            yield key, _without_titles(part)
