"""`tinymem localize`: where a model keeps sequences, by the INJ and DEL benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinymem.cli.options import (
    Checkpoint,
    Column,
    CorpusPath,
    Device,
    DType,
    Forget,
    Format,
    LocalizationFile,
    Match,
    MaxSize,
    Methods,
    NeededOut,
    NoVerify,
    Overrides,
    Plugins,
    PrintJson,
    Prompt,
    Retain,
    Revision,
    Seed,
    load_plugins,
    local_checkpoint,
    words,
)  # fmt: skip
from tinymem.cli.printing import check_folder, chosen, print_localized
from tinymem.errors import UserError
from tinymem.runtime.json import Json, JsonObject

if TYPE_CHECKING:
    from tinymem.data.own_rows import RowFiles
    from tinymem.models.weights import DTypeName
    from tinymem.recipe.localization import LocalizationRecipe


@dataclass(frozen=True)
class Model:
    """The model of a benchmark, in a local folder, and how it is loaded."""

    path: Path
    device: str
    dtype: DTypeName
    verify: bool


localize_app = typer.Typer(help="Ask scorers where a model keeps sequences, and check the answer.", no_args_is_help=True)

Sequences = Annotated[
    Path | None,
    typer.Option("--sequences", metavar="FILE", help="Texts or ids to inject: .jsonl, .csv, .parquet or .npy. Default: random tokens."),
]

Unit = Annotated[Literal["neuron", "weight"] | None, typer.Option("--unit", help="Inject into neurons (the default) or into weights.")]


@localize_app.command("inj")
def inj(
    checkpoint: Checkpoint,
    out: NeededOut,
    recipe: LocalizationFile = None,
    unit: Unit = None,
    methods: Methods = None,
    sequences: Sequences = None,
    column: Column = None,
    retain: Retain = None,
    overrides: Overrides = None,
    seed: Seed = None,
    corpus: CorpusPath = None,
    device: Device = "auto",
    dtype: DType = "auto",
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Write new sequences into random neurons or weights, and ask each scorer for them (INJ); default: the recipe's scorers, or all.

    --out is a folder of result rows; `tinymem report` reads it, and the same command goes on with it.
    """
    from tinymem.data.own_rows import RowFiles

    load_plugins(plugin)
    given: JsonObject = {} if sequences is None else {"sequences.file": str(sequences.absolute())}
    given |= {} if column is None else {"sequences.column": column}
    given |= {} if unit is None else {"unit": unit}
    made = _recipe("inj", recipe, overrides, methods, seed, given)
    model = Model(local_checkpoint(checkpoint, revision, max_size), device, dtype, not no_verify)
    _run(model, made, out, RowFiles(None, retain, corpus=corpus), chosen(output, json))


@localize_app.command("del")
def delete(
    checkpoint: Checkpoint,
    out: NeededOut,
    recipe: LocalizationFile = None,
    methods: Methods = None,
    forget: Forget = None,
    retain: Retain = None,
    corpus: CorpusPath = None,
    prompt: Prompt = None,
    match: Match = None,
    column: Column = None,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = "auto",
    dtype: DType = "auto",
    no_verify: NoVerify = False,
    revision: Revision = None,
    max_size: MaxSize = None,
    plugin: Plugins = None,
    output: Format = "table",
    json: PrintJson = False,
) -> None:
    """Drop the neurons that each scorer names for a memorized row, and measure that row, others and text (DEL Benchmark).

    Default: the recipe's scorers, or all.
    --out is a folder of result rows; `tinymem report` reads it, and the same command goes on with it.
    """
    from tinymem.data.own_rows import RowFiles

    load_plugins(plugin)
    made = _recipe("del", recipe, overrides, methods, seed, {})
    model = Model(local_checkpoint(checkpoint, revision, max_size), device, dtype, not no_verify)
    _run(model, made, out, RowFiles(forget, retain, prompt, match, column, corpus=corpus), chosen(output, json))


def _recipe(
    benchmark: Literal["inj", "del"],
    path: Path | None,
    overrides: list[str] | None,
    methods: str | None,
    seed: int | None,
    given: JsonObject,
) -> LocalizationRecipe:
    from tinymem.recipe.localization import load_localization, parse_localization
    from tinymem.recipe.source import overridden, set_value

    values: JsonObject = {"benchmark": benchmark}
    if path is not None:
        found = load_localization(path, overrides)
        if found.benchmark != benchmark:
            raise UserError(f"expected a recipe of {benchmark}, got {found.benchmark} in {path}; try `tinymem localize {found.benchmark}`")
        values = found.model_dump(mode="json")
    else:
        values = overridden(values, overrides)
    values |= {} if methods is None else {"methods": _named(words(methods) or (), values.get("methods"))}
    values |= {} if seed is None else {"seed": seed}
    for key, value in given.items():
        set_value(values, key, value)
    return parse_localization(values)


def _named(names: Iterable[str], known: Json) -> list[Json]:
    """The named scorers, with the options that the recipe's have."""
    from tinymem.recipe.method import short_method

    methods: list[Json] = [short_method(method) for method in known] if isinstance(known, list) else []
    found: list[Json] = []
    for name in names:
        found += [method for method in methods if isinstance(method, dict) and method.get("name") == name] or [name]
    return found


def _run(model: Model, recipe: LocalizationRecipe, out: Path, files: RowFiles, output: str) -> None:
    from tinymem.report.tables.localization import localization_tables
    from tinymem.runs.localization import localize
    from tinymem.runtime.locks import sole_writer
    from tinymem.runtime.progress import Progress

    check_folder(out)
    with sole_writer(out):
        rows = localize(
            model.path, recipe, out=out, files=files, device=model.device, dtype=model.dtype, verify=model.verify,
            progress=Progress(show=True),
        )  # fmt: skip
    print_localized(rows, localization_tables, output)
