"""The published findings about localization as rows of one table, and how sensitive tuned scorers are (Chang et al. 2024, sections 4 to 6).

What is compared: the rankings of INJ and DEL; recall at the largest and the smallest injected ratio; recall compared within layers and over
the whole model; what is erased of a row and of other rows; and the ranking of the published Table 3.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tinymem.localization.agreement import Agreement, Values, over_scorers, over_sequences
from tinymem.localization.recall import bootstrap
from tinymem.report.tables.link import agreement_cell
from tinymem.report.tables.localization import models_apart, scorer_name
from tinymem.report.tables.measured_with import by_words, left_out_note, named_apart, repeated, words_of
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


class Place(NamedTuple):
    """One benchmark of a model: words for what it was measured with, where there are several, and the ratio."""

    words: str
    ratio: float

    def said(self, did: str) -> str:
        """Both, in a line's setting."""
        return ", ".join(filter(None, (f"{100 * self.ratio:g} % {did}", self.words)))


@report_table("findings", "tuning")
def tables_of_findings(inputs: TableInputs) -> list[Table]:
    """The findings that the rows allow, and the options that were tried on development rows."""
    rows = models_apart(inputs.results.localization)
    lines = [line for model in _models(rows) for line in _lines([row for row in rows if _model(row) == model])]
    left = _left_out(rows)
    tried = list(_tried(rows))
    heads = ("method", "model", "dropped", "options", "combinations", "most erasing", "median", "least erasing")
    columns = tuple(Column(head, numeric=number > 3) for number, head in enumerate(heads))
    return [
        *([Table("findings", "findings", "Findings about localization", COLUMNS, tuple(lines), (NOTE, *left))] if lines or left else []),
        *([Table("tuning", "tuning", "Options tried on development rows", columns, tuple(tried), (TUNING_NOTE,))] if tried else []),
    ]


def _models(rows: Sequence[LocalizationRow]) -> list[str]:
    return list(dict.fromkeys(_model(row) for row in rows))


def _model(row: LocalizationRow) -> str:
    return row.model_id or row.run or ""


def _lines(rows: Sequence[LocalizationRow]) -> Iterator[Line]:
    recalls = {place: _recalls(part, place.ratio, "layer") for place, part in _parts(rows, "inj")}
    erased = {place: _by_scorer(part, place.ratio, "self_accuracy") for place, part in _parts(rows, "del")}
    for place, scorers in recalls.items():
        yield from _beside_published(scorers, place)
    for place, scorers in recalls.items():
        for dropped, own in erased.items():
            setting = f"{place.said('injected')}, {dropped.said('dropped')}"
            yield from _rankings("INJ and DEL rank alike", setting, scorers, own)
    for dropped, part in _parts(rows, "del"):
        others = _by_scorer(part, dropped.ratio, "other_accuracy")
        yield from _rankings("what erases more spares more of the others", dropped.said("dropped"), erased[dropped], others)
    for words in dict.fromkeys(place.words for place in recalls):
        at = {place.ratio: scorers for place, scorers in recalls.items() if place.words == words}
        if len(at) > 1:
            large, small = max(at), min(at)
            setting = ", ".join(filter(None, (f"{100 * small:g} % less {100 * large:g} %", words)))
            yield from _differences("recall of fewer injected neurons", setting, at[small], at[large])
    for place, part in _parts(rows, "inj"):
        whole = _recalls(part, place.ratio, "model")
        yield from _differences("recall per layer less global", place.said("injected"), recalls[place], whole)


def _parts(rows: Sequence[LocalizationRow], benchmark: str) -> list[tuple[Place, list[LocalizationRow]]]:
    """A model's rows of a benchmark for each way in which it was measured and each ratio; those that have a twin are left out."""
    ways = _ways([row for row in rows if row.benchmark == benchmark])
    parts = {words: [row for row in part if row.id not in twins] for words, part in ways.items() for twins in [repeated(part)]}
    return [(Place(words, ratio), part) for words, part in parts.items() for ratio in _ratios(part)]


def _ways(rows: Sequence[LocalizationRow]) -> dict[str, list[LocalizationRow]]:
    """Rows of neurons by what they were measured with; one number of a scorer that several runs found is there once."""
    asked = [row for row in rows if row.artifact != "development" and (row.unit or "neuron") == "neuron" and row.score is not None]
    return by_words(asked, words_of(asked))


def _left_out(rows: Sequence[LocalizationRow]) -> list[str]:
    """A sentence where results are in no finding, since nothing tells them from others."""
    ways = _ways([row for row in rows if row.benchmark in ("inj", "del")])
    return left_out_note(
        f"{scorer_name(row)} ({row.id[:6]})" for part in ways.values() for one in [repeated(part)] for row in part if row.id in one
    )


def _ratios(rows: Sequence[LocalizationRow]) -> list[float]:
    return sorted({row.ratio for row in rows if row.ratio})


def _recalls(rows: Sequence[LocalizationRow], ratio: float, scope: str) -> Scorers:
    """INJ's rows with as many neurons named as are injected."""
    return {scorer_name(r): r for r in rows if r.benchmark == "inj" and r.ratio == ratio and r.scope == scope and _exact(r)}


def _exact(row: LocalizationRow) -> bool:
    return row.top is not None and row.ratio is not None and abs(row.top - row.ratio) < 1e-9


def _by_scorer(rows: Sequence[LocalizationRow], ratio: float, name: str) -> Scorers:
    return {scorer_name(r): r for r in rows if r.benchmark == "del" and r.ratio == ratio and r.score_name == name}


def _beside_published(scorers: Scorers, place: Place) -> Iterator[Line]:
    known = PUBLISHED.get(place.ratio, {})
    published = {name: known[row.method] for name, row in scorers.items() if row.method in known}
    if len(published) >= LEAST:
        rows, others = [scorers[name] for name in published], np.array(list(published.values()))
        drawn = over_sequences(_values(rows), None, others) if _complete(rows) else None
        yield _line("ranks as GPT-2 in the published Table 3", rows, place.said("injected"), over_scorers(_scores(rows), others), drawn)


def _rankings(finding: str, setting: str, one: Scorers, other: Scorers) -> Iterator[Line]:
    """A line of rho between one measure and the negative of the other."""
    pairs = [(row, beside) for name, row in one.items() if (beside := _beside(name, one, other))]
    if len(pairs) < LEAST:
        return
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    drawn = None
    if _complete(first) and _complete(second):
        drawn = over_sequences(_values(first), -_values(second), -_scores(second))
    yield _line(finding, first, setting, over_scorers(_scores(first), -_scores(second)), drawn, second)


def _differences(finding: str, setting: str, one: Scorers, other: Scorers) -> Iterator[Line]:
    for name, row in one.items():
        beside = _beside(name, one, other)
        if beside is None or row.score is None or beside.score is None:
            continue
        low_high = ""
        if row.values and beside.values and len(row.values) == len(beside.values):
            low, high = bootstrap(100 * (torch.tensor(row.values) - torch.tensor(beside.values)))
            low_high = f"{low:+.1f} to {high:+.1f}"
        value = 100 * (row.score - beside.score)
        cell = Cell(f"{value:+.1f}", value=value, n=row.sequences, sources=(row.source, beside.source))
        yield (*_heads(finding, row, setting, name), cell, Cell(""), Cell(low_high))


def _beside(name: str, one: Scorers, other: Scorers) -> LocalizationRow | None:
    """The other row of a scorer: of the same options, or of others where its method is there once on both sides."""
    method = one[name].method
    of_method = [row for row in other.values() if row.method == method]
    alone = len(of_method) == 1 and sum(row.method == method for row in one.values()) == 1
    return other.get(name) or (of_method[0] if alone else None)


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
    developed = [row for row in rows if row.artifact == "development" and row.score_name == "self_accuracy" and row.score is not None]
    for row in named_apart(developed):
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
