"""Text of a recipe that looks like a number: `trigger: 100` means the digits, and what YAML reads as another number is refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from tinymem.recipe.source import WrittenInt


def _as_written(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if type(value) is int:
        return str(value)
    got = f"{value.written}, which YAML reads as {int(value)}" if isinstance(value, WrittenInt) else f"what YAML reads as {value}"
    raise ValueError(f"expected '{info.field_name}' to be text, got {got}; quote it: {info.field_name}: \"...\"")


WrittenText = Annotated[str, BeforeValidator(_as_written, json_schema_input_type=str | int)]
"""A string; the digits of a whole number need no quotes."""
