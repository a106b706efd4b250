"""`tinymem localize classes`: in which layers classifiers memorize flipped labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinymem.cli.options import (
    Checkpoint,
    Device,
    Format,
    LocalizationFile,
    MaxSize,
    NeededOut,
    NoVerify,
    Overrides,
    Plugins,
    PrintJson,
    Revision,
    Seed,
    Techniques,
    load_plugins,
    local_checkpoint,
    words,
)  # fmt: skip
from tinymem.cli.printing import check_folder, chosen, print_localized
from tinymem.errors import UserError

if TYPE_CHECKING:
    from tinymem.recipe.classification import ClassificationRecipe
    from tinymem.runtime.json import JsonObject

Tasks = Annotated[str | None, typer.Option("--tasks", metavar="NAMES", help="Generated tasks, with commas between. Default: all six.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="SOURCE", help="A labeled data set in place of generated tasks: Parquet, .jsonl or .csv, or of the Hub."
    ),
]
Text = Annotated[str | None, typer.Option("--text", metavar="COLUMNS", help="Columns of the text in --data. Default: text.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column of the label in --data. Default: label.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start from fresh weights of the model's shape.")]


def classes(
    checkpoint: Checkpoint,
    out: NeededOut,
    tasks: Tasks = None,
    techniques: Techniques = None,
    data: Data = None,
    text: Text = None,
    label: Label = None,
    fresh: Fresh = False,
    recipe: LocalizationFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = "auto",
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Train classifiers on tasks with flipped labels, and ask techniques which layers memorized them; default: six generated tasks.

    --out is a folder of result rows and classifiers; `tinymem report` reads it, and the same command goes on with it.
    """
    from tinymem.report.tables.classes import classes_tables
    from tinymem.runs.classification import localize_classes
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    output = chosen(output, json)
    load_plugins(plugin)
    given: JsonObject = {} if tasks is None else {"tasks": list(words(tasks) or ())}
    given |= {} if techniques is None else {"techniques": list(words(techniques) or ())}
    given |= ({} if seed is None else {"seed": seed}) | ({"fresh": True} if fresh else {})
    made = _recipe(recipe, overrides, given, _data(data, text, label))
    place = local_checkpoint(checkpoint, revision, max_size)
    check_folder(out)
    with sole_writer(out):
        rows = localize_classes(place, made, out=out, device=device, verify=not no_verify, progress=Progress(show=True))
    print_localized(rows, classes_tables, output)


def _data(source: str | None, text: str | None, label: str | None) -> JsonObject:
    """The keys of the recipe's data that options give."""
    if source is None and (text or label):
        raise UserError("expected a data set for --text and --label, got none; give --data")
    found: JsonObject = {} if source is None else {"source": source}
    found |= {} if text is None else {"text": list(words(text) or ())}
    return found | ({} if label is None else {"label": label})


def _recipe(path: Path | None, overrides: list[str] | None, given: JsonObject, data: JsonObject) -> ClassificationRecipe:
    from tinymem.recipe.classification import load_classification, parse_classification
    from tinymem.recipe.source import overridden

    values = overridden({}, overrides) if path is None else load_classification(path, overrides).model_dump(mode="json")
    return parse_classification({**values, **given, **({"data": data} if data else {})})
