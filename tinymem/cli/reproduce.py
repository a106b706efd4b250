"""`tinymem reproduce`: a published table beside our rows, on the shipped checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import Device, FromFolders, Jobs, NeededOut, Stored, Sweeps
from tinymem.cli.printing import check_out
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.results.row import MeasuredRow

STORED = Path("docs/table1.parquet")
RECIPES = Path("recipes/paper")


def reproduce(
    table: Annotated[Literal["table1"], typer.Argument(help="The published table.")] = "table1",
    run: Annotated[bool, typer.Option("--run", help="Do what is left of the table's sweeps, and store their rows first.")] = False,
    rows: FromFolders = None,
    stored: Stored = STORED,
    out: NeededOut = Path("docs/reproduction.md"),
    sweeps: Sweeps = Path("sweeps"),
    jobs: Jobs = None,
    device: Device = "auto",
) -> None:
    """Write a published table beside the stored rows of ours, with the reason for each difference, as Markdown.

    --out is the page.
    """
    from tinymem.runtime.files import write_text
    from tinymem.zoo.document import reproduction_page
    from tinymem.zoo.stored import store_rows, stored_rows

    check_out(out, "markdown")
    if run and rows:
        raise UserError("expected --run or --from, got both; --run stores the rows of its own sweeps")
    found = _measured(sweeps, device, jobs) if run else _read(rows) if rows else None
    if found is not None:
        echo(f"{stored}: {counted(store_rows(stored, found), 'row')}")
    write_text(out, reproduction_page(stored_rows(stored)))
    echo(f"{out}: {table}")


def _read(folders: list[Path]) -> list[MeasuredRow]:
    from tinymem.results.collect import load_results
    from tinymem.zoo.stored import lean

    return [lean(row) for row in load_results(folders).rows]


def _measured(sweeps: Path, device: str, jobs: int | None) -> list[MeasuredRow]:
    from tinymem.runtime.progress import Progress
    from tinymem.zoo.stored import lean
    from tinymem.zoo.table_runs import run_table

    return [lean(row) for row in run_table(RECIPES, sweeps, device, jobs, Progress(show=True))]
