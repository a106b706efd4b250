"""JSON schemas, as far as those of recipes go: by the library jsonschema where it is installed, else by these few rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)}
RULES = {
    "$ref", "anyOf", "type", "enum", "const", "properties", "required", "additionalProperties", "maxProperties", "items", "prefixItems",
    "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "pattern",
}  # fmt: skip
WORDS = {"$schema", "$defs", "description", "default", "format"}


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value."""
    if find_spec("jsonschema"):
        from jsonschema import Draft202012Validator

        Draft202012Validator.check_schema(schema)
        return [f"{list(error.path)}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]
    return list(by_rules(schema, value, schema["$defs"]))


def by_rules(schema: dict[str, Any] | bool, value: Any, definitions: dict[str, Any], place: str = "recipe") -> Iterator[str]:
    if isinstance(schema, bool):
        yield from () if schema else [f"{place}: not allowed"]
        return
    assert set(schema) <= RULES | WORDS, f"the checker lacks {set(schema) - RULES - WORDS}"
    if "$ref" in schema:
        yield from by_rules(definitions[schema["$ref"].rpartition("/")[2]], value, definitions, place)
    if "anyOf" in schema and all(any(by_rules(part, value, definitions)) for part in schema["anyOf"]):
        yield f"{place}: {value!r} is none of {len(schema['anyOf'])} forms"
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{place}: {value!r} is no value of it"
    if "type" in schema and not any(
        is_a(value, kind) for kind in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
    ):
        yield f"{place}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from of_object(schema, value, definitions, place)
    elif isinstance(value, list):
        yield from of_list(schema, value, definitions, place)
    elif isinstance(value, str):
        if len(value) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), value):
            yield f"{place}: {value!r} is not like it"
    elif is_a(value, "number"):
        bounds = [value < schema.get("minimum", value), value > schema.get("maximum", value),
                  value <= schema.get("exclusiveMinimum", value - 1), value >= schema.get("exclusiveMaximum", value + 1)]  # fmt: skip
        yield from [f"{place}: {value} is out of range"] if any(bounds) else []


def is_a(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def of_object(schema: dict[str, Any], value: dict[str, Any], definitions: dict[str, Any], place: str) -> Iterator[str]:
    yield from (f"{place}: lacks {name}" for name in schema.get("required", ()) if name not in value)
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{place}: has too many keys"
    for name, part in value.items():
        below = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
        yield from by_rules(below, part, definitions, f"{place}.{name}")


def of_list(schema: dict[str, Any], value: list[Any], definitions: dict[str, Any], place: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{place}: has {len(value)} entries"
    first = schema.get("prefixItems", [])
    for i, part in enumerate(value):
        yield from by_rules(first[i] if i < len(first) else schema.get("items", True), part, definitions, f"{place}.{i}")
