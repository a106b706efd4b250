"""`tinymem runs`: what lies in folders of runs and sweeps, and in which state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.options import Format, PrintJson
from tinymem.cli.printing import chosen, listing, print_json, print_listing

Folders = Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs or sweeps. Default: runs and sweeps.")]
HEADS = ("name", "kind", "state", "progress", "size", "changed", "why")


def runs(folders: Folders = None, output: Format = "table", json: PrintJson = False) -> None:
    """List runs and sweeps with their state: done, running, waiting (something is left to do), failed and why, or unknown."""
    from dataclasses import asdict

    from tinymem.report.tables.table import Cell
    from tinymem.runs.listing import list_folders
    from tinymem.runtime.words import counted, size

    output = chosen(output, json)
    given = folders or [place for place in (Path("runs"), Path("sweeps")) if place.is_dir()]
    found = list_folders(given)
    if output == "json":
        print_json([asdict(listed) for listed in found])
        return
    rows = [
        (
            one.name,
            one.kind,
            one.state,
            one.progress,
            Cell(size(one.bytes), value=one.bytes),
            f"{one.changed[:16].replace('T', ' ')}",
            one.why,
        )
        for one in found
    ]
    states = ", ".join(f"{sum(one.state == state for one in found)} {state}" for state in dict.fromkeys(one.state for one in found))
    notes = [f"{counted(len(found), 'run or sweep', 'runs and sweeps')}" + (f": {states}" if states else "; `tinymem run` makes one")]
    print_listing(listing("Runs and sweeps", HEADS, rows, notes=notes, optional=("changed",)), output)
