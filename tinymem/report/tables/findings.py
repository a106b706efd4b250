"""The published findings about localization as rows of one table, and how sensitive tuned scorers are (Chang et al. 2024, sections 4 to 6).

What is compared: the rankings of INJ and DEL; recall at the largest and the smallest injected ratio; recall compared within layers and over
the whole model; what is erased of a row and of other rows; and the ranking of the published Table 3.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tinymem.localization.agreement import Agreement, Values, over_scorers, over_sequences
from tinymem.localization.recall import bootstrap
from tinymem.report.tables.link import agreement_cell
from tinymem.report.tables.localization import scorer_name, with_dtypes
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.row import LocalizationRow

PUBLISHED: dict[float, dict[str, float]] = {
    0.01: {"hard-concrete": 49.5, "slim": 48.1, "zero": 24.9, "ig": 20.5, "act": 3.0, "random-neurons": 1.0},
    0.001: {"hard-concrete": 56.4, "slim": 58.9, "zero": 54.1, "ig": 53.5, "act": 11.1, "random-neurons": 0.1},
}
"""GPT-2's recall in % of the published Table 3 by injected ratio, as many neurons of each layer named as are injected."""
LEAST = 3
NOTE = (
    "Spearman's rho of scorers: the first interval draws scorers with replacement (of up to six all resamples, each with the pair of "
    "values of a scorer), the second one sequences, the same for all scorers; resamples without an order are left out. Differences of "
    "recall are in points, paired by sequence where both have the same ones. All intervals are 95 % bootstrap intervals."
)
TUNING_NOTE = (
    "Change of suffix accuracy in points, of the development rows themselves, by the combination of options; the first is the one that all "
    "other rows are measured with. A wide range says that a scorer depends on options that have to be chosen on rows of the model."
)
COLUMNS = (
    Column("finding", numeric=False), Column("model", numeric=False), Column("setting", numeric=False), Column("scorers", numeric=False),
    Column("value"), Column("over scorers"), Column("over sequences"),
)  # fmt: skip
Line = tuple[Cell, ...]
Scorers = dict[str, LocalizationRow]


@report_table("findings", "tuning")
def tables_of_findings(inputs: TableInputs) -> list[Table]:
    """The findings that the rows allow, and the options that were tried on development rows."""
    rows = with_dtypes(inputs.results.localization)
    lines = [line for model in _models(rows) for line in _lines([row for row in rows if _model(row) == model])]
    tried = list(_tried(rows))
    heads = ("method", "model", "dropped", "options", "combinations", "most erasing", "median", "least erasing")
    columns = tuple(Column(head, numeric=number > 3) for number, head in enumerate(heads))
    return [
        *([Table("findings", "findings", "Findings about localization", COLUMNS, tuple(lines), (NOTE,))] if lines else []),
        *([Table("tuning", "tuning", "Options tried on development rows", columns, tuple(tried), (TUNING_NOTE,))] if tried else []),
    ]


def _models(rows: Sequence[LocalizationRow]) -> list[str]:
    return list(dict.fromkeys(_model(row) for row in rows))


def _model(row: LocalizationRow) -> str:
    return row.model_id or row.run or ""


def _lines(rows: Sequence[LocalizationRow]) -> Iterator[Line]:
    kept = [row for row in rows if row.artifact != "development" and (row.unit or "neuron") == "neuron" and row.score is not None]
    recalls = {ratio: _recalls(kept, ratio, "layer") for ratio in _ratios(kept, "inj")}
    erased = {ratio: _by_scorer(kept, ratio, "self_accuracy") for ratio in _ratios(kept, "del")}
    for ratio, scorers in recalls.items():
        yield from _beside_published(scorers, ratio)
    for ratio, scorers in recalls.items():
        for dropped, own in erased.items():
            setting = f"{100 * ratio:g} % injected, {100 * dropped:g} % dropped"
            yield from _rankings("INJ and DEL rank alike", setting, scorers, own)
    for dropped, own in erased.items():
        others = _by_scorer(kept, dropped, "other_accuracy")
        yield from _rankings("what erases more spares more of the others", f"{100 * dropped:g} % dropped", own, others)
    if len(recalls) > 1:
        large, small = max(recalls), min(recalls)
        setting = f"{100 * small:g} % less {100 * large:g} %"
        yield from _differences("recall of fewer injected neurons", setting, recalls[small], recalls[large])
    for ratio, scorers in recalls.items():
        whole = _recalls(kept, ratio, "model")
        yield from _differences("recall per layer less global", f"{100 * ratio:g} % injected", scorers, whole)


def _ratios(rows: Sequence[LocalizationRow], benchmark: str) -> list[float]:
    return sorted({row.ratio for row in rows if row.benchmark == benchmark and row.ratio})


def _recalls(rows: Sequence[LocalizationRow], ratio: float, scope: str) -> Scorers:
    """INJ's rows with as many neurons named as are injected."""
    return {scorer_name(r): r for r in rows if r.benchmark == "inj" and r.ratio == ratio and r.scope == scope and _exact(r)}


def _exact(row: LocalizationRow) -> bool:
    return row.top is not None and row.ratio is not None and abs(row.top - row.ratio) < 1e-9


def _by_scorer(rows: Sequence[LocalizationRow], ratio: float, name: str) -> Scorers:
    return {scorer_name(r): r for r in rows if r.benchmark == "del" and r.ratio == ratio and r.score_name == name}


def _beside_published(scorers: Scorers, ratio: float) -> Iterator[Line]:
    published = {name: PUBLISHED[ratio][row.method] for name, row in scorers.items() if row.method in PUBLISHED.get(ratio, {})}
    if len(published) >= LEAST:
        rows, others = [scorers[name] for name in published], np.array(list(published.values()))
        drawn = over_sequences(_values(rows), None, others) if _complete(rows) else None
        setting = f"{100 * ratio:g} % injected"
        yield _line("ranks as GPT-2 in the published Table 3", rows, setting, over_scorers(_scores(rows), others), drawn)


def _rankings(finding: str, setting: str, one: Scorers, other: Scorers) -> Iterator[Line]:
    """A line of rho between one measure and the negative of the other."""
    by_method = {row.method: row for row in other.values()}
    pairs = [(row, by_method[row.method]) for row in one.values() if row.method in by_method]
    if len(pairs) < LEAST:
        return
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    drawn = None
    if _complete(first) and _complete(second):
        drawn = over_sequences(_values(first), -_values(second), -_scores(second))
    yield _line(finding, first, setting, over_scorers(_scores(first), -_scores(second)), drawn, second)


def _differences(finding: str, setting: str, one: Scorers, other: Scorers) -> Iterator[Line]:
    for name, row in one.items():
        beside = other.get(name) or _only(other, row.method)
        if beside is None or row.score is None or beside.score is None:
            continue
        low_high = ""
        if row.values and beside.values and len(row.values) == len(beside.values):
            low, high = bootstrap(100 * (torch.tensor(row.values) - torch.tensor(beside.values)))
            low_high = f"{low:+.1f} to {high:+.1f}"
        value = 100 * (row.score - beside.score)
        cell = Cell(f"{value:+.1f}", value=value, n=row.sequences, sources=(row.source, beside.source))
        yield (*_heads(finding, row, setting, name), cell, Cell(""), Cell(low_high))


def _only(scorers: Scorers, method: str) -> LocalizationRow | None:
    """The row of a method whose options differ between ratios, if it is there once."""
    found = [row for row in scorers.values() if row.method == method]
    return found[0] if len(found) == 1 else None


def _line(
    finding: str,
    rows: Sequence[LocalizationRow],
    setting: str,
    found: Agreement,
    drawn: Agreement | None,
    more: Sequence[LocalizationRow] = (),
) -> Line:
    whole, sequences = agreement_cell(found), agreement_cell(drawn) if drawn else Cell("")
    sources = tuple(row.source for row in (*rows, *more))
    value = Cell(whole.text, value=whole.value, n=len(rows), sources=sources)
    return (*_heads(finding, rows[0], setting, str(len(rows))), value, Cell(whole.small), Cell(sequences.small))


def _heads(finding: str, row: LocalizationRow, setting: str, scorers: str) -> Line:
    return Cell(finding, value=finding), Cell(row.model_name or row.run or ""), Cell(setting, value=setting), Cell(scorers, value=scorers)


def _scores(rows: Sequence[LocalizationRow]) -> Values:
    return np.array([row.score or 0.0 for row in rows])


def _values(rows: Sequence[LocalizationRow]) -> Values:
    return np.array([row.values for row in rows], dtype=np.float64)


def _complete(rows: Sequence[LocalizationRow]) -> bool:
    """Whether all have the values of the same number of sequences, as rows that were stored before have not."""
    return len({len(row.values or ()) for row in rows}) == 1 and bool(rows[0].values)


def _tried(rows: Sequence[LocalizationRow]) -> Iterator[Line]:
    groups: dict[tuple[str, str, float], list[LocalizationRow]] = defaultdict(list)
    for row in rows:
        if row.artifact == "development" and row.score_name == "self_accuracy" and row.score is not None:
            groups[_model(row), row.method, row.ratio or 0].append(row)
    for (_, method, ratio), found in groups.items():
        ordered = sorted(found, key=lambda row: row.score or 0.0)
        changes = [100 * (row.score or 0.0) for row in ordered]
        shown = [changes[0], statistics.median(changes), changes[-1]]
        yield (
            Cell(method, value=method, sources=tuple(row.source for row in ordered)), Cell(ordered[0].model_name or ordered[0].run or ""),
            Cell(f"{100 * ratio:g} %", value=ratio), Cell(scorer_name(ordered[0]).removeprefix(method).strip() or "defaults"),
            Cell(str(len(ordered)), value=len(ordered)), *(Cell(f"{value:+.1f}", value=value) for value in shown),
        )  # fmt: skip
