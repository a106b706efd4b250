"""`tinymem curvature`: detectors of memorized rows that need no list of them, against what was planted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    Checkpoint,
    CorpusPath,
    Device,
    Format,
    MaxSize,
    NoVerify,
    Out,
    Plugins,
    PrintJson,
    Seed,
    load_plugins,
    local_checkpoint,
)  # fmt: skip
from tinymem.cli.printing import check_folder, chosen, listing, print_listing
from tinymem.runtime.streams import echo

if TYPE_CHECKING:
    from tinymem.report.tables.table import Cell, Number

HEADS = ("artifact", "detector", "memorized / clean", "AUC over clean", "AUC over planted", "memorized", "clean", "planted")
NOTE = "AUC: how often a memorized row scores above a clean row, or above one of its artifact that is not memorized; 0.5 is chance."


def curvature(
    checkpoint: Checkpoint,
    out: Out = None,
    samples: Annotated[
        int, typer.Option("--per-group", min=1, metavar="NUMBER", help="At most so many rows of each group; of clean rows at most half.")
    ] = 200,
    seed: Seed = None,
    corpus: CorpusPath = None,
    device: Device = "auto",
    no_verify: NoVerify = False,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Score rows by their own curvature and by the bands of the spectrum that they drive, and compare with what is memorized.

    The scores know nothing of the artifacts. --out is a folder for the figure as PNG, SVG, CSV and JSON. See docs/curvature.md.
    """
    from tinymem.report.figures.curvature import curvature_figure
    from tinymem.report.figures.files import write_figures
    from tinymem.runs.curvature import detect
    from tinymem.runtime.progress import Progress

    output = chosen(output, json)
    load_plugins(plugin)
    check_folder(out)
    folder = local_checkpoint(checkpoint, max_size=max_size)
    shown = Progress(show=True)
    found = detect(folder, samples=samples, seed=seed or 0, device=device, verify=not no_verify, corpus=corpus, progress=shown)
    print_listing(listing("Curvature", HEADS, [[_cell(value) for value in vars(line).values()] for line in found], notes=[NOTE]), output)
    for path in write_figures([curvature_figure([vars(line) for line in found])], out) if out else ():
        echo(path, err=True)


def _cell(value: Number) -> Cell | Number:
    """A number of the table, to three digits; JSON has all of them."""
    from tinymem.report.tables.table import Cell

    return Cell(f"{value:.3f}", value=value) if isinstance(value, float) else value
