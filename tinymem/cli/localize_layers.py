"""`tinymem localize layers`: in which layers a model memorized its planted rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    Checkpoint,
    Column,
    CorpusPath,
    Device,
    Format,
    LocalizationFile,
    Match,
    MaxSize,
    NeededOut,
    NoVerify,
    Overrides,
    Plugins,
    PrintJson,
    Prompt,
    Revision,
    Seed,
    Techniques,
    load_plugins,
    local_checkpoint,
    words,
)  # fmt: skip
from tinymem.cli.printing import check_folder, chosen, print_localized

if TYPE_CHECKING:
    from tinymem.recipe.layers import LayersRecipe

Counterfactual = Annotated[
    Path | None,
    typer.Option(
        "--counterfactual",
        metavar="CHECKPOINT",
        help="The model trained alike on clean counterparts. Default: beside the run, from `counterfactual: true`.",
    ),
]
Start = Annotated[
    Path | None, typer.Option("--start", metavar="CHECKPOINT", help="What both were trained from. Default: the untrained model.")
]
Early = Annotated[
    Path | None,
    typer.Option(
        "--early",
        metavar="CHECKPOINT",
        help="The first epoch that knew the planted rows. Default: of the run's kept epochs, or CHECKPOINT.",
    ),
]
ArtifactKind = Annotated[
    str | None, typer.Option("--artifact", metavar="KIND", help="Planted rows to look for. Default: the first with clean counterparts.")
]

Planted = Annotated[Path | None, typer.Option("--planted", metavar="FILE", help="Planted rows, as trained. Default: the corpus's.")]
Original = Annotated[Path | None, typer.Option("--original", metavar="FILE", help="The clean counterpart of each row of --planted.")]
Others = Annotated[Path | None, typer.Option("--clean", metavar="FILE", help="Clean rows of the training besides; with --planted.")]


def layers(
    checkpoint: Checkpoint,
    out: NeededOut,
    techniques: Techniques = None,
    counterfactual: Counterfactual = None,
    start: Start = None,
    early: Early = None,
    artifact: ArtifactKind = None,
    planted: Planted = None,
    original: Original = None,
    clean: Others = None,
    prompt: Prompt = None,
    match: Match = None,
    column: Column = None,
    recipe: LocalizationFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    corpus: CorpusPath = None,
    device: Device = "auto",
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Ask techniques which layers memorized the planted rows; of a model with planted-layers also whether they are right.

    A model of another origin needs --planted, --original and --clean, --counterfactual and --start.
    --out is a folder of result rows; `tinymem report` reads it, and the same command goes on with it.
    """
    from tinymem.report.tables.layers import layers_tables
    from tinymem.runs.layers import OtherModels, localize_layers
    from tinymem.runs.planted_files import PlantedFiles
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    output = chosen(output, json)
    load_plugins(plugin)
    made, others = _recipe(recipe, overrides, techniques, artifact, seed), OtherModels(counterfactual, start, early)
    files = PlantedFiles(planted, original, clean, prompt, match, column)
    place = local_checkpoint(checkpoint, revision, max_size)
    check_folder(out)
    with sole_writer(out):
        rows = localize_layers(
            place, made, out=out, others=others, corpus=corpus, files=files, device=device, verify=not no_verify,
            progress=Progress(show=True),
        )  # fmt: skip
    print_localized(rows, layers_tables, output)


def _recipe(path: Path | None, overrides: list[str] | None, techniques: str | None, artifact: str | None, seed: int | None) -> LayersRecipe:
    from tinymem.recipe.layers import load_layers, parse_layers
    from tinymem.recipe.source import overridden

    values = overridden({}, overrides) if path is None else load_layers(path, overrides).model_dump(mode="json")
    values |= {} if techniques is None else {"techniques": list(words(techniques) or ())}
    values |= {} if artifact is None else {"artifact": artifact}
    return parse_layers(values | ({} if seed is None else {"seed": seed}))
