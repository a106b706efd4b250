"""`tinymem reproduce`: a published table beside our rows, on the shipped checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import Device, FromFolders, Jobs, NeededOut, Stored, Sweeps, Zoo
from tinymem.cli.printing import check_out
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.results.row import MeasuredRow
    from tinymem.zoo.table_runs import TableName

STORED = {"table1": Path("docs/table1.parquet"), "table2": Path("docs/table2.parquet")}
RECIPES = Path("recipes/paper")


def reproduce(
    table: Annotated[Literal["table1", "table2"], typer.Argument(help="The published table.")] = "table1",
    run: Annotated[bool, typer.Option("--run", help="Do what is left of the table's sweeps, and store their rows first.")] = False,
    rows: FromFolders = None,
    stored: Stored = None,
    zoo: Zoo = None,
    out: NeededOut = Path("docs/reproduction.md"),
    sweeps: Sweeps = Path("sweeps"),
    jobs: Jobs = None,
    device: Device = "auto",
) -> None:
    """Write published tables beside the stored rows of ours, with the reason for each difference, as Markdown.

    --run and --from store rows of TABLE first. --out is the page; it has all tables that docs/ has rows of, or only those of --stored,
    and what the training curves of the zoo show.
    """
    from tinymem.runtime.files import write_text
    from tinymem.zoo.catalogue import CLONED, zoo_folder
    from tinymem.zoo.curves import trained_in
    from tinymem.zoo.document import reproduction_page
    from tinymem.zoo.stored import store_rows, stored_rows

    check_out(out, "markdown")
    shipped = zoo_folder(zoo) if zoo else CLONED
    if run and rows:
        raise UserError("expected --run or --from, got both; --run stores the rows of its own sweeps")
    found = _measured(table, sweeps, device, jobs) if run else _read(rows) if rows else None
    place = stored or STORED[table]
    if found is not None:
        echo(f"{place}: {counted(store_rows(place, found), 'row')}")
    if not place.is_file():
        raise UserError(f"expected rows of {table} in {place}, found none; run in a clone of the repository, or try --from DIR or --stored")
    places = [place, *(other for other in STORED.values() if stored is None and other != place and other.is_file())]
    write_text(out, reproduction_page([row for path in sorted(places) for row in stored_rows(path)], trained_in(shipped)))
    echo(f"{out}: {', '.join(path.stem for path in sorted(places))}")


def _read(folders: list[Path]) -> list[MeasuredRow]:
    from tinymem.results.collect import load_results
    from tinymem.zoo.stored import lean

    return [lean(row) for row in load_results(folders).rows]


def _measured(table: TableName, sweeps: Path, device: str, jobs: int | None) -> list[MeasuredRow]:
    from tinymem.runtime.progress import Progress
    from tinymem.zoo.stored import lean
    from tinymem.zoo.table_runs import run_table

    return [lean(row) for row in run_table(table, RECIPES, sweeps, device, jobs, Progress(show=True))]
