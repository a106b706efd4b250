"""The table that compares the models of several runs: a line per configuration, a column for each key of their recipes that differs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tinymem.recipe.data import STATED
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.training import WITHOUT_EFFECT
from tinymem.report.cells import DASH, little_data, plain
from tinymem.report.configuration import Configuration
from tinymem.report.means import mean_of
from tinymem.report.tables.memorization import memorized_cell, performance_cell, seconds_cell
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.collect import Results, measured_on, training_seconds
from tinymem.results.columns import ACCURACY
from tinymem.results.row import MeasuredRow, TrainingRow
from tinymem.results.run_folder import RunRecord
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.words import counted

HEADS = {"accuracy": "accuracy %", "perplexity": "perplexity"}
KINDS, PLUGINS = ("artifacts", "training.regularizers"), "plugins"
MEASURED = ("protocol", "data", "artifacts", "evaluation")
"""Sections of a recipe that decide which rows are measured, and how."""
NOTE = (
    "The trained models, before any method. Best in bold: least memorized, highest accuracy, lowest perplexity, and all that show the "
    "same number; seconds are those of training. Counts are rows memorized of rows scored."
)


@dataclass(frozen=True)
class TrainedRun:
    """One run as a variant's seed.

    Attributes:
        record: its folder.
        recipe: its recipe.
        rows: of the trained model, by artifact; empty until the training is done and measured.
    """

    record: RunRecord
    recipe: Recipe
    rows: dict[str, TrainingRow]

    @property
    def corpora(self) -> set[str]:
        """The start of the hash of the corpus that it was trained on, where its rows say it."""
        return {row.corpus_sha256[:8] for row in self.rows.values() if row.corpus_sha256}


@dataclass(frozen=True)
class Variant:
    """Runs whose recipes differ in the seed alone, or in what does not touch the model; the first with numbers of each seed counts."""

    keys: JsonObject
    runs: list[TrainedRun]

    @property
    def counting(self) -> list[TrainedRun]:
        """The runs that means are made of: of each seed the first with numbers."""
        found: dict[int, TrainedRun] = {}
        for run in self.runs:
            if run.rows:
                found.setdefault(run.recipe.seed, run)
        return list(found.values())

    def of(self, artifact: str) -> Configuration:
        """The rows of an artifact, one per seed."""
        return Configuration("none", "", tuple(run.rows[artifact] for run in self.counting if artifact in run.rows))

    @property
    def any_artifact(self) -> Configuration:
        """A row per seed, for what is the same in all rows of a model."""
        return Configuration("none", "", tuple(next(iter(run.rows.values())) for run in self.counting))


@report_table("variants")
def tables_of_variants(inputs: TableInputs) -> list[Table]:
    """The one table, where more than one run with a recipe is given and any has numbers."""
    runs = _runs(inputs.results)
    return [table_of_variants(runs)] if len(runs) > 1 and any(run.rows for run in runs) else []


def table_of_variants(runs: Sequence[TrainedRun]) -> Table:
    """Compare the trained models: what they memorized of each artifact, their performance, and the seconds of their training."""
    variants = _variants(runs)
    keys = differing([variant.keys for variant in variants])
    artifacts = list(dict.fromkeys(artifact for run in runs for artifact in run.rows))
    metrics = [name for name in HEADS if any(v.counting and v.any_artifact.metric == name for v in variants)]
    seeds = ["seed"] if len({run.recipe.seed for run in runs}) > 1 else []
    columns = [Column(head, numeric=False) for head in ("run", *keys, *seeds)]
    columns += [
        *(Column("% memorized", artifact) for artifact in artifacts),
        *(Column(HEADS[name]) for name in metrics),
        Column("seconds", "training"),
    ]
    lines = [[*_words(v, keys, seeds), *_numbers(v, artifacts, metrics)] for v in variants]
    first = len(columns) - len(artifacts) - len(metrics) - 1
    planted = [line for line, variant in zip(lines, variants, strict=True) if not variant.runs[0].recipe.is_counterfactual]
    for place in range(first, len(columns) - 1):
        _mark_best(planted, place, highest=columns[place].title == HEADS["accuracy"])
    title = f"Variants: {counted(len(runs), 'run')}"
    return Table("variants", "variants", title, tuple(columns), tuple(map(tuple, lines)), tuple(_notes(variants, keys, artifacts)))


# ---- runs and their keys ------------------------------------------------------------------------------------------------------------


def _runs(results: Results) -> list[TrainedRun]:
    """Each run's folder once, with the rows of its model at the end of its training."""
    records = {record.path.resolve(): record for record in results.records}.values()
    return [TrainedRun(record, record.recipe, _rows(results, record, record.recipe)) for record in records if record.recipe]


def _rows(results: Results, record: RunRecord, recipe: Recipe) -> dict[str, TrainingRow]:
    models = {measured_on(row) for row in record.rows}
    own = [row for row in results.trained if (measured_on(row) in models if models else row.run == record.name)]
    last = [row for row in own if row.epoch is None or row.epoch >= recipe.training.epochs]
    return {row.artifact: replace(row, training_seconds=training_seconds(record)) for row in last}


def _variants(runs: Sequence[TrainedRun]) -> list[Variant]:
    found: dict[str, Variant] = {}
    corpora: dict[tuple[str, int], set[str]] = defaultdict(set)
    for run in runs:
        corpora[canonical_json(keys_of(run.recipe)), run.recipe.seed] |= run.corpora
    for run in runs:
        keys = keys_of(run.recipe)
        if len(corpora[canonical_json(keys), run.recipe.seed]) > 1:  # a text that changed under one recipe
            keys = {**keys, "corpus": ", ".join(sorted(run.corpora))}
        found.setdefault(canonical_json(keys), Variant(keys, [])).runs.append(run)
    return list(found.values())


def keys_of(recipe: Recipe) -> JsonObject:
    """The keys that decide a model and its measurement, dotted, but for the seed: what `Recipe.model_key` is made of."""
    without = dict.fromkeys(("name", "seed", "mitigation"), True)
    values: JsonObject = recipe.model_dump(mode="json", exclude=without | {"data": {*STATED}, "training": {*WITHOUT_EFFECT}})
    return dict(_flat({**values, "evaluation": recipe.evaluation.key()}, ""))


def _flat(value: Json, key: str) -> Iterator[tuple[str, Json]]:
    """Yield dotted keys; of a list of kinds their names, and the options of each: `artifacts` and `artifacts.noise.rows`."""
    if isinstance(value, list) and key in (*KINDS, PLUGINS):
        sections = [section for section in value if isinstance(section, dict)]
        yield key, " + ".join(map(_name, sections)) or "none"
        value = {str(section["kind"]): {k: v for k, v in section.items() if k != "kind"} for section in sections if key != PLUGINS}
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _name(section: JsonObject) -> str:
    """The kind; of a plugin its file and the start of its hash, which tells two versions apart."""
    return str(section["kind"]) if "kind" in section else f"{section['file']} {str(section['sha256'])[:8]}"


def differing(found: Sequence[JsonObject]) -> list[str]:
    """The keys of which the recipes that have them hold different values, in the recipe's order."""
    keys = dict.fromkeys(key for values in found for key in values)
    return [key for key in keys if len({canonical_json([values[key]]) for values in found if key in values}) > 1]


# ---- cells --------------------------------------------------------------------------------------------------------------------------


def _names(variant: Variant) -> str:
    return ", ".join(run.record.name for run in variant.runs)


def _words(variant: Variant, keys: Sequence[str], seeds: Sequence[str]) -> list[Cell]:
    given = ", ".join(map(str, sorted({run.recipe.seed for run in variant.runs})))
    values = [Cell(plain(variant.keys[key]) if key in variant.keys else DASH) for key in keys]
    return [Cell(_names(variant)), *values, *(Cell(given) for _ in seeds)]


def _numbers(variant: Variant, artifacts: Sequence[str], metrics: Sequence[str]) -> list[Cell]:
    whole = variant.any_artifact
    reached = [_performance(whole) if whole.metric == name else Cell(DASH) for name in metrics]
    seconds = mean_of(row.training_seconds for row in whole.rows)
    return [*(memorized_cell(variant.of(artifact), "before") for artifact in artifacts), *reached, seconds_cell(seconds, whole.sources)]


def _performance(whole: Configuration) -> Cell:
    """The performance; an accuracy of one seed with its interval, which for several would say less than their spread."""
    share = whole.rows[0].share(ACCURACY, "before") if len(whole.rows) == 1 else None
    return replace(performance_cell(whole, "before"), share=share, of_tokens=True)


def _mark_best(lines: list[list[Cell]], place: int, *, highest: bool) -> None:
    """Mark the best of a column and all that show the same number; none where there is nothing to compare."""
    shown = {i: round(v, 2) for i, line in enumerate(lines) if isinstance(v := line[place].value, float) and math.isfinite(v)}
    best = (max if highest else min)(shown.values(), default=None)
    for i, value in shown.items():
        if len(shown) > 1 and value == best:
            lines[i][place] = replace(lines[i][place], best=True)


# ---- notes --------------------------------------------------------------------------------------------------------------------------


def _notes(variants: Sequence[Variant], keys: Sequence[str], artifacts: Sequence[str]) -> Iterator[str]:
    yield NOTE
    seeds = max(len(variant.counting) for variant in variants)
    if seeds > 1:
        yield "Runs that differ in the seed alone are one line: mean ± sample standard deviation over n seeds, counts of all together."
    if other := [key for key in keys if key.partition(".")[0] in MEASURED]:
        yield f"Lines that differ in {', '.join(other)} are measured on other rows or in another way: the best need not be better."
    rows = [row for variant in variants for artifact in artifacts for row in variant.of(artifact).rows]
    if any(row.memorized_by_copies_before and row.artifact == "noise" for row in rows):
        yield "noise: of the rows repeated most often, as in the paper."
    yield from little_data(_fewest(rows), seeds)
    for variant in variants:
        yield from _left_out(variant)


def _fewest(rows: Sequence[MeasuredRow]) -> dict[str, int | None]:
    """The fewest scored rows of each artifact."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        found[row.artifact] += [row.rows_scored] if row.rows_scored is not None else []
    return {artifact: min(counts, default=None) for artifact, counts in found.items()}


def _left_out(variant: Variant) -> Iterator[str]:
    """Yield a sentence for each run whose numbers are not in the line, with the reason."""
    for run in variant.runs:
        name, epochs = run.record.name, run.recipe.training.epochs
        reached = run.record.curve[-1].epoch if run.record.curve else 0
        if not run.rows:
            yield f"{name}: no numbers yet, {f'trained to epoch {reached:,} of {epochs:,}' if reached < epochs else 'not measured'}."
        elif not any(run is other for other in variant.counting):
            yield f"{name}: another run of the same recipe and seed; the first one counts."
