"""Tables of the localization benchmarks: recall of injected sequences (INJ), and what dropping located neurons costs (DEL)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from tinymem.report.cells import DASH
from tinymem.report.tables.measured_with import by_injection, named_apart, repeated
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.row import LocalizationRow

DEL_HEADS = {
    "self_accuracy": ("accuracy", "of the row itself", 100, 1),
    "self_distance": ("characters", "of the row itself", 1, 1),
    "other_accuracy": ("accuracy", "of other rows", 100, 1),
    "other_distance": ("characters", "of other rows", 1, 1),
    "text_perplexity": ("perplexity", "of ordinary text", 1, 2),
    "text_perplexity_base2": ("2^nats, as published", "of ordinary text", 1, 2),
}
"""Per metric of DEL its column, the group of the column, the factor for display and the digits."""
SCOPES = {"tensor": "per matrix", "layer": "per layer"}
INJ_NOTE = (
    "% of the injected {unit}s among those that a scorer names (the column's % of each {part}, or of the whole model), mean over "
    "sequences, with its 95 % bootstrap interval over sequences; a random choice finds as many % as it may name. The loss of {reached} of "
    "{sequences} sequences fell below the wanted one while they were injected{injection}."
)
DEL_NOTE = (
    "Change when the named neurons of one row are dropped, mean over {sequences} rows, with its 95 % bootstrap interval; accuracy in "
    "percentage points of teacher-forced suffix tokens, characters of edit distance. Perplexity is e to the mean loss in nats; as "
    "published: 2 to that loss, which is no perplexity. Intervals of text are over its rows too, the same before and after the edit."
)


@report_table("inj", "del")
def tables_of_localization(inputs: TableInputs) -> list[Table]:
    """Tables of the localization benchmarks, one for each model, benchmark and ratio."""
    return localization_tables(inputs.results.localization)


def localization_tables(rows: Sequence[LocalizationRow]) -> list[Table]:
    """One table for each model, benchmark, choice of its options, unit and ratio, scorers sorted by their best-known column."""
    groups: dict[tuple[str, str, str, float], list[LocalizationRow]] = {}
    shown = [row for row in models_apart(sorted(rows, key=_place)) if row.benchmark in ("inj", "del") and row.artifact != "development"]
    for row in named_apart(shown):
        groups.setdefault((row.model_id or row.run or "", row.benchmark or "", row.unit or "neuron", row.ratio or 0), []).append(row)
    parts = [(*key, part) for key, found in groups.items() for part in by_injection(found)]
    return [_table(benchmark, ratio, part) for _, benchmark, _, ratio, part in parts]


def _place(row: LocalizationRow) -> tuple[str, str, float]:
    """By model; of INJ the most injected first, of DEL the fewest dropped, as the benchmarks run."""
    ratio = row.ratio or 0.0
    return row.model_name or "", row.run or "", -ratio if row.benchmark == "inj" else ratio


def models_apart(rows: Sequence[LocalizationRow]) -> list[LocalizationRow]:
    """The rows, each model with a name of its own: where several have one, with their runs, epochs or ids of weights, as far as needed."""
    found, models = _with_dtypes(rows), defaultdict[str, dict[str, LocalizationRow]](dict)
    for row in found:
        models[_name(row)].setdefault(row.model_id or row.run or "", row)
    words = {(name, one): told for name, alike in models.items() for one, told in zip(alike, _telling(list(alike.values())), strict=True)}
    named = [(row, words[_name(row), row.model_id or row.run or ""]) for row in found]
    return [replace(row, model_name=f"{_name(row)} ({told})") if told else row for row, told in named]


def _telling(models: Sequence[LocalizationRow]) -> list[str]:
    """Of each of several models what tells it from the others; nothing of a single one."""
    words = [""] * len(models)
    details = [[row.run or "" for row in models], [_time(row) for row in models], [f"weights {(row.model_id or '')[:6]}" for row in models]]
    for values in details:
        if len(set(words)) < len(models) and len(set(values)) > 1:
            words = [", ".join(filter(None, pair)) for pair in zip(words, values, strict=True)]
    return words


def _time(row: LocalizationRow) -> str:
    """When in training the model was kept, as far as it is known."""
    return f"step {row.step:,}" if row.step is not None else "" if row.epoch is None else f"epoch {row.epoch:g}"


def _name(row: LocalizationRow) -> str:
    return row.model_name or row.run or "model"


def _with_dtypes(rows: Sequence[LocalizationRow]) -> list[LocalizationRow]:
    """The rows, in which a model that was measured with weights of several types is as many models, each named with its type."""
    types = defaultdict[str, set[str]](set)
    for row in rows:
        types[row.model_id or row.run or ""].add(row.dtype or "float32")
    return [_with_dtype(row) if len(types[row.model_id or row.run or ""]) > 1 else row for row in rows]


def _with_dtype(row: LocalizationRow) -> LocalizationRow:
    dtype = row.dtype or "float32"
    return replace(row, model_id=f"{row.model_id or row.run or 'model'}-{dtype}", model_name=f"{_name(row)}, {dtype}")


def _table(benchmark: str, ratio: float, rows: list[LocalizationRow]) -> Table:
    alike = repeated(rows)
    heads = _inj_heads(rows) if benchmark == "inj" else _del_heads(rows)
    by_scorer: dict[str, list[LocalizationRow]] = {}
    for row in rows:
        by_scorer.setdefault(row.id, []).append(row)
    lines = [_line(found, heads, f"run {name[:6]}" if name in alike else "") for name, found in by_scorer.items()]
    lines.sort(key=lambda cells: _order(cells, benchmark))
    first, did = rows[0], "injected" if benchmark == "inj" else "dropped"
    weights = first.unit == "weight"
    words = {"unit": first.unit or "neuron", "part": "matrix" if weights else "layer", "injection": _injection(first)}
    note = (INJ_NOTE if benchmark == "inj" else DEL_NOTE).format(reached=first.reached, sequences=first.sequences, **words)
    of = "-weights" if weights else ""
    key = f"{benchmark}{of}-{first.model_id or 'model'}-{ratio:g}"
    columns = (Column("scorer", numeric=False), *(column for _, column in heads), Column("s", optional=True))
    title = f"{benchmark.upper()}{' of weights' if weights else ''}: {100 * ratio:g} % {did}, {first.model_name or first.run}"
    return Table(benchmark, key.replace(".", "-"), title, columns, tuple(lines), (note,))


def _injection(row: LocalizationRow) -> str:
    """What the injection took and how much it changed, of rows that know it."""
    changed = "weights" if row.unit == "weight" else "value vectors"
    steps = "" if row.steps is None else f", after {row.steps:g} steps (median)"
    if row.change is None:
        return steps
    percent = f"{100 * row.change:.3g}" if row.change < 10 else f"{100 * row.change:,.0f}"
    return f"{steps} that changed their {changed} by {percent} % of their norm"


Key = tuple[str | float | None, ...]
Head = tuple[Key, Column]


def _inj_heads(rows: list[LocalizationRow]) -> list[Head]:
    found: dict[Key, Column] = {}
    for row in rows:
        found[row.scope, row.top] = Column(f"{100 * (row.top or 0):g} %", SCOPES.get(row.scope or "", "global"))
    return list(found.items())


def _del_heads(rows: list[LocalizationRow]) -> list[Head]:
    there = {row.score_name for row in rows}
    return [((name,), Column(title, group)) for name, (title, group, _, _) in DEL_HEADS.items() if name in there]


def scorer_name(row: LocalizationRow) -> str:
    """The scorer with its options that are not at their defaults."""
    return " ".join([row.method, *([_options(row)] if row.options else [])])


def _options(row: LocalizationRow) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.options.items())


def _line(rows: list[LocalizationRow], heads: list[Head], run: str) -> tuple[Cell, ...]:
    """A scorer; with the start of its id where its name and options are those of another line too."""
    inj = rows[0].benchmark == "inj"
    cells: dict[Key, Cell] = {(row.scope, row.top) if inj else (row.score_name,): _cell(row) for row in rows}
    options, seconds = ", ".join(filter(None, (_options(rows[0]), run))), rows[0].seconds
    return (
        Cell(rows[0].method, small=options, value=rows[0].method, sources=(rows[0].source,)),
        *(cells.get(key, Cell(DASH)) for key, _ in heads),
        Cell(DASH if seconds is None else f"{seconds:,.1f}", value=seconds),
    )


def _cell(row: LocalizationRow) -> Cell:
    _, _, factor, digits = DEL_HEADS.get(row.score_name or "", ("", "", 100, 1))
    if row.score is None:
        return Cell(DASH)
    sign = "+" if row.benchmark == "del" else ""
    ends = "" if row.low is None or row.high is None else f"{factor * row.low:.{digits}f} to {factor * row.high:.{digits}f}"
    return Cell(f"{factor * row.score:{sign}.{digits}f}", small=ends, value=factor * row.score, n=row.sequences, sources=(row.source,))


def _order(cells: tuple[Cell, ...], benchmark: str) -> float:
    """INJ: highest recall first; DEL: most erased first."""
    value = cells[1].value
    number = float(value) if isinstance(value, int | float) else 0.0
    return -number if benchmark == "inj" else number
