"""What methods there are, for people: the paper's Table 5 and a page per method."""

from __future__ import annotations

from dataclasses import MISSING, fields

from tinymem.mitigation.frame import UNLEARNERS, Properties


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


COLUMNS = ("method", "unit", "information", "iterative", "layer-wise", "criterion", "dual objective")


def print_catalogue() -> None:
    """All registered methods with their properties."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, caption="`tinymem methods show NAME` says more; columns as in Table 5 of the paper", caption_justify="left")
    for name in UNLEARNERS.names():
        table.add_row(name, *properties_row(UNLEARNERS.get(name).properties))
    Console().print(table)


def describe(name: str) -> str:
    """Documentation, options with defaults, and grid of one method, as plain text.

    Raises:
        UserError: no such method.
    """
    method = UNLEARNERS.get(name)
    lines = [f"{name} ({method.properties.unit}, {method.kind}s)", "", method.documentation, "", "Options and defaults:"]
    for option in fields(method.config):
        default = option.default if option.default is not MISSING else "required"
        lines.append(f"  --{option.name.replace('_', '-'):<20} {default}   ({option.type})")
    grid = getattr(method.config, "grid", {})
    if grid:
        lines += [
            "",
            "The paper's grid (A.3.5):",
            *(f"  {key}: {', '.join(f'{v:g}' for v in values)}" for key, values in grid.items()),
        ]
    return "\n".join(lines)


def _tick(value: bool) -> str:
    return "yes" if value else ""
