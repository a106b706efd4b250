"""`tinymem localize layers`: in which layers a model memorized its planted rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    CorpusPath,
    Device,
    Format,
    LocalizationFile,
    NeededOut,
    NoVerify,
    Overrides,
    Plugins,
    PrintJson,
    Seed,
    Techniques,
    load_plugins,
    local_checkpoint,
    words,
)  # fmt: skip
from tinymem.cli.printing import check_folder, chosen, print_localized

if TYPE_CHECKING:
    from tinymem.recipe.layers import LayersRecipe

Model = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of TinyMem's, such as runs/<run>/checkpoint, with its corpus beside it.")
]
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


def layers(
    checkpoint: Model,
    out: NeededOut,
    techniques: Techniques = None,
    counterfactual: Counterfactual = None,
    start: Start = None,
    early: Early = None,
    artifact: ArtifactKind = None,
    recipe: LocalizationFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    corpus: CorpusPath = None,
    device: Device = "auto",
    no_verify: NoVerify = False,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Ask techniques which layers memorized the planted rows; of a model with planted-layers also whether they are right.

    --out is a folder of result rows; `tinymem report` reads it, and the same command goes on with it.
    """
    from tinymem.report.tables.layers import layers_tables
    from tinymem.runs.layers import OtherModels, localize_layers
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    output = chosen(output, json)
    load_plugins(plugin)
    made, others = _recipe(recipe, overrides, techniques, artifact, seed), OtherModels(counterfactual, start, early)
    place = local_checkpoint(checkpoint)
    check_folder(out)
    with sole_writer(out):
        rows = localize_layers(
            place, made, out=out, others=others, corpus=corpus, device=device, verify=not no_verify, progress=Progress(show=True)
        )
    print_localized(rows, layers_tables, output)


def _recipe(path: Path | None, overrides: list[str] | None, techniques: str | None, artifact: str | None, seed: int | None) -> LayersRecipe:
    from tinymem.recipe.layers import load_layers, parse_layers
    from tinymem.recipe.source import overridden

    values = overridden({}, overrides) if path is None else load_layers(path, overrides).model_dump(mode="json")
    values |= {} if techniques is None else {"techniques": list(words(techniques) or ())}
    values |= {} if artifact is None else {"artifact": artifact}
    return parse_layers(values | ({} if seed is None else {"seed": seed}))
