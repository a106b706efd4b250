"""The catalog of methods as text: the paper's Table 5, and a page per method."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Literal, get_args, get_origin, get_type_hints

from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import UNLEARNERS, Properties


def properties_row(properties: Properties) -> list[str]:
    """One method's cells of Table 5, without its name."""
    return [
        properties.unit,
        properties.order,
        _tick(properties.iterative),
        _tick(properties.layer_wise),
        properties.criterion,
        _tick(properties.dual_objective),
    ]


COLUMNS = ("method", "unit", "order", "iterative", "layer-wise", "criterion", "dual")


NOTE = "Table 5 of the paper, its methods as it has them; the option `scope` says what competes. `tinymem methods show NAME` says more."


def catalogue() -> list[list[str]]:
    """A line of `COLUMNS` per registered method."""
    return [[name, *properties_row(UNLEARNERS.get(name).properties)] for name in UNLEARNERS.names()]


HEAD = re.compile(r"([A-Z][a-z]+): ")
PARAGRAPH = re.compile(r"\n\n|\n(?=[A-Z][a-z]+: )")
FACTS = ("part", "name", "value", "type")


def facts(name: str) -> list[list[str]]:
    """A line of `FACTS` per property, paragraph, option and axis of a grid of one method.

    Raises:
        UserError: no such method.
    """
    method = UNLEARNERS.get(name)
    found = [["property", head, value, ""] for head, value in zip(COLUMNS, [name, *properties_row(method.properties)], strict=True)]
    for text in PARAGRAPH.split(method.documentation):
        head = HEAD.match(text)
        found.append(["documentation", head[1].lower() if head else "", " ".join(text[head.end() if head else 0 :].split()), ""])
    found += [["option", option, default, _choices(method.config, option)] for option, default in _options(method.config)]
    for part, grid in (("grid of the paper", method.config.grid), ("grid of the published runs", method.config.published_grid)):
        found += [[part, key, _axis(values), ""] for key, values in (grid or {}).items()]
    return found


def describe(name: str) -> str:
    """Documentation, options with defaults, and grid of one method, as plain text.

    Raises:
        UserError: no such method.
    """
    method = UNLEARNERS.get(name)
    lines = [f"{name} ({method.properties.unit}, {method.kind}s)", "", method.documentation, ""]
    if not method.needs_forget:
        lines += ["Is shown no row to forget: all scored rows count as holdout.", ""]
    if method.by_name:
        lines += ["Runs where it is named: `all` leaves it out.", ""]
    lines += ["Options and defaults:"]
    for option, default in _options(method.config):
        lines.append(f"  --{option.replace('_', '-'):<15} {default:<10} {_choices(method.config, option)}")
    titles = ("The paper's grid (A.3.5):", "The grid of the published runs, which differs:")
    for grid, title in zip((method.config.grid, method.config.published_grid), titles, strict=True):
        if grid:
            lines += ["", title, *(f"  {key}: {_axis(values)}" for key, values in grid.items())]
    return "\n".join(lines)


def _options(config: type[MethodConfig]) -> list[tuple[str, str]]:
    """Names and defaults of a method's options."""
    return [(option.name, "required" if option.default is MISSING else str(option.default)) for option in fields(config)]


def _axis(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _choices(config: type[MethodConfig], option: str) -> str:
    """The type of an option, `float` for instance, or its permitted words."""
    hint = get_type_hints(config)[option]
    return " | ".join(map(str, get_args(hint))) if get_origin(hint) is Literal else getattr(hint, "__name__", str(hint))


def _tick(value: bool) -> str:
    return "yes" if value else ""
