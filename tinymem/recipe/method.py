"""A method in a recipe: its registered name and its options."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tinymem.recipe.data import Section


class Method(Section):
    """One mitigation: a registered name and its options."""

    name: str = Field(description="a registered method, or `all`; `tinymem methods` lists them")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method; `tinymem methods show NAME` lists them")


def short_method(value: Any) -> Any:
    """`act` and `{act: {ratio: 0.1}}` with the keys of `Method`; other values as they are."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        name, options = next(iter(value.items()))
        return {"name": name, "options": options or {}}
    return value
