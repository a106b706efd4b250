"""`tinymem reproduce`: a published table beside our rows, on the shipped checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import AddFolders, Device, FromFolders, Jobs, NeededOut, Stored, Sweeps, Zoo
from tinymem.cli.printing import check_out
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.results.row import MeasuredRow
    from tinymem.zoo.table_runs import TableName

SLICES = "slices"
STORED = {name: Path(f"docs/{name}.parquet") for name in ("table1", "table2", SLICES)}
TITLES = {"table1": "Table 1", "table2": "Table 2"}
RECIPES = Path("recipes/paper")


def reproduce(
    table: Annotated[Literal["table1", "table2", "slices"], typer.Argument(help="The published table; slices: section 6.1.")] = "table1",
    run: Annotated[bool, typer.Option("--run", help="Do what is left of the table's sweeps, and store their rows first.")] = False,
    rows: FromFolders = None,
    add: AddFolders = None,
    stored: Stored = None,
    zoo: Zoo = None,
    out: NeededOut = Path("docs/reproduction.md"),
    sweeps: Sweeps = Path("sweeps"),
    jobs: Jobs = None,
    device: Device = "auto",
) -> None:
    """Write published tables beside the stored rows of ours, with the reason for each difference, as Markdown.

    --run, --from and --add store rows of TABLE first, and none of other models: --from in place of all that are stored, --add beside them.
    --out is the page; it has all tables that docs/ has rows of, or only those of --stored, and what the training curves of the zoo show.
    """
    from tinymem.runtime.files import write_text
    from tinymem.zoo.catalogue import CLONED, zoo_folder
    from tinymem.zoo.curves import trained_in
    from tinymem.zoo.document import reproduction_page
    from tinymem.zoo.stored import store_rows, stored_rows

    check_out(out, "markdown")
    shipped = zoo_folder(zoo) if zoo else CLONED
    if sum((run, bool(rows), bool(add))) > 1:
        raise UserError("expected one of --run, --from and --add, got several; --run stores the rows of its own sweeps")
    place = stored or STORED[table]
    if table == "slices" and run:
        raise UserError(
            "expected --from or --add for slices, got --run; train their models, sweep recipes/paper/slices.yaml, then --add it"
        )
    found = _measured(table, sweeps, device, jobs) if run and table != "slices" else _read(table, rows) if rows else None
    if add:
        found = _added(table, stored_rows(place) if place.is_file() else [], _read(table, add))
    if found is not None:
        echo(f"{place}: {counted(store_rows(place, found), 'row')}")
    if not place.is_file():
        raise UserError(f"expected rows of {table} in {place}, found none; run in a clone of the repository, or try --from DIR or --stored")
    if stored:
        _fitting(table, stored_rows(stored), str(stored), "no page was written")
    places = {name: path for name, path in STORED.items() if stored is None and path.is_file()} | {table: place}
    of_tables, of_slices = ([row for name in names if name in places for row in stored_rows(places[name])] for names in (TITLES, [SLICES]))
    write_text(out, reproduction_page(of_tables, trained_in(shipped), of_slices))
    echo(f"{out}: {', '.join(places[name].stem for name in STORED if name in places)}")


def _added(table: str, known: list[MeasuredRow], new: list[MeasuredRow]) -> list[MeasuredRow]:
    from tinymem.zoo.slices import with_newer
    from tinymem.zoo.stored import merged

    return with_newer(known, new) if table == SLICES else merged(known, new)


def _read(table: str, folders: list[Path]) -> list[MeasuredRow]:
    from tinymem.results.collect import load_results
    from tinymem.zoo.stored import lean

    rows = [lean(row) for row in load_results(folders).rows if row.is_ok]
    return _fitting(table, rows, ", ".join(map(str, folders)), "nothing was stored")


def _fitting(table: str, rows: list[MeasuredRow], where: str, so: str) -> list[MeasuredRow]:
    """The rows of models that the table has; raises UserError where there are none."""
    from tinymem.zoo.reproduction import is_of_table
    from tinymem.zoo.slices import is_of_slice

    found = [row for row in rows if (is_of_slice(row) if table == SLICES else is_of_table(row, TITLES[table]))]
    if not found:
        wanted = (
            f"{table} (of models with their data, layers and epoch, as a run's or those of its checkpoints)" if table == SLICES else table
        )
        got = f"{counted(len(rows), 'row')} of other models" if rows else "none with a result"
        raise UserError(f"expected rows of {wanted} in {where}, found {got}; {so}, check the path")
    return found


def _measured(table: TableName, sweeps: Path, device: str, jobs: int | None) -> list[MeasuredRow]:
    from tinymem.runtime.progress import Progress
    from tinymem.zoo.stored import lean
    from tinymem.zoo.table_runs import run_table

    return [lean(row) for row in run_table(table, RECIPES, sweeps, device, jobs, Progress(show=True))]
