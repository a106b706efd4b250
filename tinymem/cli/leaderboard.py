"""`tinymem zoo leaderboard`: every method on every shipped checkpoint, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import Device, FromFolders, Jobs, NeededOut, Seed, Stored, Sweeps, Zoo
from tinymem.cli.printing import check_out
from tinymem.errors import UserError
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.results.row import MeasuredRow
    from tinymem.zoo.board_runs import Place

STORED, PAGE = Path("docs/leaderboard.parquet"), Path("docs/leaderboard.md")
TABLES = (Path("docs/table1.parquet"), Path("docs/table2.parquet"))
SECONDS = 1.0


def leaderboard(
    submit: Annotated[Path | None, typer.Option(metavar="FILE", help="Run the methods of this file first, and store their rows.")] = None,
    rows: FromFolders = None,
    check: Annotated[bool, typer.Option("--check", help="Run a sample of the lines again, and write nothing.")] = False,
    sample: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Lines that --check runs.")] = 5,
    seed: Seed = None,
    stored: Stored = None,
    table: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Rows of the paper's tables. Default: those in docs/.")] = None,
    out: NeededOut = PAGE,
    sweeps: Sweeps = Path("sweeps"),
    zoo: Zoo = None,
    jobs: Jobs = None,
    device: Device = "auto",
) -> None:
    """Write the page of every method on every shipped checkpoint, from stored rows; or run a sample of it again.

    --out is the page. --check runs lines that took no longer than a second; exit code 1 if a number lies outside its tolerance.
    """
    from tinymem.runtime.files import write_text
    from tinymem.runtime.progress import Progress
    from tinymem.zoo.board_runs import Place
    from tinymem.zoo.catalogue import entry_of, names_in, weights_of, zoo_folder
    from tinymem.zoo.leaderboard import leaderboard_page
    from tinymem.zoo.stored import merged, store_rows, stored_rows

    check_out(out, "markdown")
    if sum((submit is not None, bool(rows), check)) > 1:
        raise UserError("expected one of --submit, --from and --check, got several; call it once for each")
    folder = zoo_folder(zoo)
    for path in table or ():
        if not path.is_file():
            raise UserError(f"expected a file of stored rows for --table, found none at {path}; check the path")
    tables = [row for path in table or TABLES if path.exists() for row in stored_rows(path)]
    kept = stored or STORED
    known = [tables, stored_rows(kept) if kept.exists() else []]
    place = Place(folder, sweeps, device, jobs, Progress(show=True))
    if check:
        _check([*known[0], *known[1]], place, sample, seed or 0)
        return
    new = _submitted(submit, place) if submit else _read(rows or [], folder)
    if new:
        known[1] = merged(known[1], new)
        echo(f"{kept}: {counted(store_rows(kept, known[1]), 'row')}")
    if not any(known):
        places = ", ".join(map(str, (kept, *(table or TABLES))))
        raise UserError(f"expected rows in {places}, found none; check the paths, or run some with --submit or --from")
    entries = [entry_of(folder / name) for name in names_in(folder)]
    write_text(out, leaderboard_page([*known[0], *known[1]], entries, weights_of(folder)))
    echo(f"{out}: {counted(len(entries), 'checkpoint')}")


def _submitted(plugin: Path, place: Place) -> list[MeasuredRow]:
    from tinymem.zoo.board_runs import submitted
    from tinymem.zoo.catalogue import names_with_rows

    return submitted(plugin, names_with_rows(place.zoo), place)


def _read(folders: list[Path], zoo: Path) -> list[MeasuredRow]:
    """The rows of folders that the page can show; raises UserError where there are none."""
    from tinymem.results.collect import load_results
    from tinymem.zoo.catalogue import weights_of
    from tinymem.zoo.leaderboard import is_of_board
    from tinymem.zoo.stored import lean

    if not folders:
        return []
    found, shipped = [row for row in load_results(folders).rows if row.is_ok], {*weights_of(zoo).values()}
    fitting = [lean(row) for row in found if is_of_board(row, shipped)]
    if not fitting:
        got = f"{counted(len(found), 'row')} of other models or protocols" if found else "none with a result"
        where = ", ".join(map(str, folders))
        raise UserError(
            f"expected rows of the checkpoints of {zoo}, under protocol paper, in {where}, found {got}; "
            "nothing was stored, name a sweep or a run over these checkpoints"
        )
    return fitting


def _check(rows: list[MeasuredRow], place: Place, count: int, seed: int) -> None:
    """Print the compared numbers of a sample of lines, stored and found."""
    from tinymem.zoo.board_runs import repeated, sample
    from tinymem.zoo.catalogue import weights_of
    from tinymem.zoo.leaderboard import standings, tolerance_sentence

    chosen = sample(standings(rows, weights_of(place.zoo)), count, seed, SECONDS)
    if not chosen:
        raise UserError("expected stored rows of these checkpoints, found none; --from DIR stores those of a sweep")
    wrong = 0
    for found in repeated(chosen, place):
        wrong += not found.is_within
        label = " ".join(part for part in (found.checkpoint, found.line.name, found.line.setting.options) if part)
        echo(f"{'ok' if found.is_within else 'OUTSIDE'}: {label}, {found.column}: stored {found.stored:.4f}, found {found.found:.4f}")
    echo(f"{counted(len(chosen), 'line')} run again, {counted(wrong, 'number')} outside. {tolerance_sentence()}")
    if wrong:
        raise typer.Exit(1)
