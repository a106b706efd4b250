"""`tinymem landscape`: the loss around checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinymem.cli.options import (
    CorpusPath,
    Device,
    DType,
    MaxSize,
    NeededOut,
    NoVerify,
    Plugins,
    Seed,
    load_plugins,
    local_checkpoint,
)  # fmt: skip
from tinymem.cli.printing import check_folder
from tinymem.runtime.streams import echo

Checkpoints = Annotated[
    list[Path],
    typer.Argument(metavar="CHECKPOINT...", help="A checkpoint, and edits of it to draw beside it; ORG/NAME[@REVISION] is fetched."),
]


def landscape(
    checkpoints: Checkpoints,
    out: NeededOut,
    rows: Annotated[
        str,
        typer.Option(
            "--rows", metavar="WHICH", help="Rows that the loss is of: test (clean test rows), an artifact such as noise, or a file."
        ),
    ] = "test",
    samples: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="At most so many rows.")] = 256,
    steps: Annotated[int, typer.Option("--points", metavar="NUMBER", help="Points per direction, odd; time grows with its square.")] = 21,
    span: Annotated[float, typer.Option(metavar="STEP", help="Largest step; at 1 a filter's change is as long as the filter.")] = 1.0,
    seed: Seed = None,
    corpus: CorpusPath = None,
    device: Device = "auto",
    dtype: DType = "auto",
    no_verify: NoVerify = False,
    max_size: MaxSize = None,
    plugin: Plugins = None,
) -> None:
    """Draw the loss around a checkpoint on a random filter-normalized plane (the paper's Figure 4).

    --out is a folder for figure-04 as PNG, SVG, CSV and JSON; a run's page shows RUN/landscape.
    """
    from tinymem.runs.landscape import write_landscape
    from tinymem.runtime.progress import Progress

    load_plugins(plugin)
    check_folder(out)
    drawn = {"rows": rows, "samples": samples, "steps": steps, "span": span, "seed": seed or 0}
    options = {**drawn, "device": device, "verify": not no_verify, "dtype": dtype}
    folders = [local_checkpoint(checkpoint, max_size=max_size) for checkpoint in checkpoints]
    for path in write_landscape(folders, out, corpus=corpus, progress=Progress(show=True), **options):  # type: ignore[arg-type]
        echo(path)
