"""The table at the end of a run, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from tinymem.report.cells import ARROW, DASH, labels, metrics, number
from tinymem.report.render.before_after import no_result, performance_change, short_change
from tinymem.report.render.run_text import bases, ceilings
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


class Layout(NamedTuple):
    """A layout of the table, by its width."""

    gap: int
    fold: bool
    cost: bool


# From roomy to narrow: the first that fits is printed.
LAYOUTS = (Layout(2, False, True), Layout(1, False, True), Layout(1, True, True), Layout(1, True, False))


def print_table(record: RunRecord, console: Console | None = None) -> None:
    """Print the results to a console; without one, to standard output (120 columns wide where that is no terminal)."""
    from rich.console import Console

    if console is None:
        console = Console()
        console.width = console.width if console.is_terminal else 120
    if record.rows:
        console.print(build_table(record, console))
    for line in footer(record, console):
        console.print(line, style="dim", markup=False, highlight=False)


def build_table(record: RunRecord, console: Console) -> Table:
    """The widest layout that fits the console without wrapping."""
    unbounded = console.options.update(width=10_000)
    for layout in LAYOUTS:
        table = _table(record, layout, to_ascii if needs_ascii(console) else str)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    return table


def footer(record: RunRecord, console: Console) -> list[str]:
    """Lines below the table: the denominators of the shares, the ceiling, and the reasons of rows without a result."""
    if not record.rows:
        return [f"{record.name}: no method has been run yet"]
    lines = [f"memorized, forget, holdout: %, before {ARROW} after", *bases(record)]
    if found := ceilings(record):
        lines.append(f"accuracy ceiling {', '.join(found)} (share of the scored tokens that the tokens before them determine)")
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        if not row.is_ok:
            lines.append(no_result(row, label))
    return [to_ascii(line) for line in lines] if needs_ascii(console) else lines


def _table(record: RunRecord, layout: Layout, encode: Callable[[str], str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, layout.gap - 1, 0, 0), show_edge=False, title=record.name, title_justify="left")
    table.title_style = "bold"
    table.add_column("method", overflow="fold")
    table.add_column("artifact")
    cost = ["seconds", "peak MB" if layout.gap > 1 else "MB"] if layout.cost else []
    for title in ("memorized", "forget", "holdout", " / ".join(metrics(record.rows)), *cost):
        table.add_column(title, justify="right", no_wrap=True)
    for row, label in zip(record.rows, labels(record.rows), strict=True):
        cells = [label, row.artifact, *_values(row, layout)]
        table.add_row(*(_text(encode(cell)) for cell in cells), style=None if row.is_ok else "dim")
    return table


def _text(cell: str) -> Text:
    from rich.text import Text

    return Text(cell)  # not a string: rich reads markup such as [red] in strings


def _values(row: MeasuredRow, layout: Layout) -> list[str]:
    memorized = short_change(row, "all", with_counts=True, fold=layout.fold)
    others = [short_change(row, "forget"), short_change(row, "holdout")]
    score = performance_change(row).replace(" %", "")
    if not row.is_ok:  # the status appears once
        others, score = [DASH, DASH], score.split(f" {ARROW} ")[0]
    cost = [number(row.seconds), number(row.peak_mb, 0)] if layout.cost else []
    return [memorized, *others, score, *cost]


def needs_ascii(console: Console) -> bool:
    """Whether the terminal cannot show arrows and dashes."""
    return not console.encoding.lower().startswith("utf")


def to_ascii(text: str) -> str:
    """Text with arrows, dashes and signs spelled out."""
    return text.replace(ARROW, "->").replace(DASH, "-").replace("±", "+-").replace("−", "-").encode("ascii", "replace").decode()
