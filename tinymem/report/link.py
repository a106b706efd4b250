"""Recall of injected sequences beside what edits by the same method leave and cost: the pairs behind the table and the figure `link`.

A pair is a method with its options at one ratio on one model: INJ's recall with as many neurons or weights named as hold a sequence
(compared within each layer, of weights within each matrix), and the mean over the rows of its edits at that ratio, which have one set of
options (several seeds and artifacts are averaged). Where a model's INJ was measured in several ways (options, sequences, seed, type of
weights, device, scope), each way has pairs of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinymem.localization.agreement import Agreement, Values, pooled_strata, within_strata
from tinymem.report.cells import plain
from tinymem.report.selection import percent_change
from tinymem.report.tables.measured_with import by_words, left_out_note, repeated, words_across
from tinymem.results.collect import Results
from tinymem.results.row import LocalizationRow, MeasuredRow
from tinymem.runtime.json import JsonObject

OUTCOMES = ("left", "holdout", "cost")


@dataclass(frozen=True)
class Pair:
    """Recall of a method at one ratio on one model, and what its edits do there.

    Attributes:
        unit: neuron or weight.
        method: name, with its options where INJ was asked with several.
        ratio: share that is injected, and that an edit zeroes.
        model: id of the model.
        recall: share of what holds a sequence among as much that is named, in [0, 1].
        chance: recall of a random choice.
        left: % of the memorized rows given to the method that are memorized after the edit; None where none were.
        holdout: the same of the rows that the method was not given.
        cost: % by which the performance is worse after the edit (less accuracy, or more perplexity).
        sources: the rows behind it.
    """

    unit: str
    method: str
    ratio: float
    model: str
    recall: float
    chance: float
    left: float | None
    holdout: float | None
    cost: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Linked:
    """The pairs of all models whose INJ was measured in one way, each model once.

    Attributes:
        words: what tells this way from others of a model; empty where INJ was measured in one way alone.
        pairs: of both units.
        left_out: sentences on results that are in no pair: nothing stored tells them from one another, or no edit has INJ's options.
        remarks: a sentence on pairs whose edits have other options than INJ.
    """

    words: str
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said below the pairs."""
        return *self.left_out, *self.remarks


def linked(results: Results) -> list[Linked]:
    """All pairs that the rows have, those of INJ measured in other ways apart."""
    edits: dict[tuple[str | None, str, float], list[MeasuredRow]] = defaultdict(list)
    for row in results.rows:
        ratio = (row.config or {}).get("ratio")
        if row.is_ok and row.kind == "mitigation" and isinstance(ratio, int | float):
            for model in {row.model_id, row.weights} - {None}:
                edits[model, row.method, float(ratio)].append(row)
    asked = [row for row in results.localization if _is_asked(row)]
    options: dict[str, set[str]] = defaultdict(set)
    for one in asked:
        options[one.method].add(_options(one.options))
    found: dict[str, list[LocalizationRow]] = defaultdict(list)
    for unit in ("neuron", "weight"):
        of_unit = [row for row in asked if (row.unit or "neuron") == unit]
        for words, rows in by_words(of_unit, words_across(of_unit)).items():
            found[words] += rows
    ways = [_linked(words, rows, edits, options) for words, rows in found.items()]
    return [way for way in ways if way.pairs or way.left_out]


def _linked(
    words: str,
    asked: Sequence[LocalizationRow],
    edits: Mapping[tuple[str | None, str, float], list[MeasuredRow]],
    options: Mapping[str, set[str]],
) -> Linked:
    twins, pairs, left_out, mixed, other = repeated(asked), [], [], [], []
    for one in asked:
        variants = options[one.method]
        name = f"{one.method} {_options(one.options)}".strip() if len(variants) > 1 else one.method
        those = _of_options(_of_type(edits.get((one.model_id, one.method, one.ratio or 0), []), one), one, variants)
        own, edited = _options(one.options), {_options(row.options) for row in those}
        if those and one.id in twins:
            left_out.append(f"{name} ({one.id[:6]})")
        elif len(edited) > 1:
            mixed.append(f"{one.method} (INJ: {own or 'defaults'}; edits: {len(edited)} sets)")
        elif those:
            pairs.append(_pair(one, those, name))
            other += [f"{one.method} (INJ: {own or 'defaults'}; edits: {edit or 'defaults'})" for edit in edited - {own}]
    notes = [*left_out_note(left_out), *_told("Left out, since edits with several sets of options are there, and none with INJ's", mixed)]
    return Linked(words, tuple(pairs), tuple(notes), tuple(_told("Edits with other options than INJ", other)))


def _told(what: str, names: Iterable[str]) -> list[str]:
    return [f"{what}: {found}."] if (found := ", ".join(sorted(set(names)))) else []


def _is_asked(row: LocalizationRow) -> bool:
    same = row.top is not None and row.ratio is not None and math.isclose(row.top, row.ratio)
    return row.benchmark == "inj" and row.is_ok and row.score is not None and same and row.scope in ("tensor", "layer")


def _options(options: JsonObject) -> str:
    return ", ".join(f"{name} {plain(value)}" for name, value in sorted(options.items()) if name != "ratio")


def _of_type(rows: Sequence[MeasuredRow], asked: LocalizationRow) -> list[MeasuredRow]:
    """Edits of the model with weights of the type that INJ had; where none has it, all that there are."""
    same = [row for row in rows if (row.dtype or "float32") == (asked.dtype or "float32")]
    return same or list(rows)


def _of_options(rows: Sequence[MeasuredRow], asked: LocalizationRow, variants: set[str]) -> list[MeasuredRow]:
    """Edits with the options that INJ was asked with; where it was asked with one set alone and no edit has it, all that there are."""
    exact = [row for row in rows if _options(row.options) == _options(asked.options)]
    return exact or (list(rows) if len(variants) == 1 else [])


def _pair(row: LocalizationRow, edits: Sequence[MeasuredRow], method: str) -> Pair:
    return Pair(
        unit=row.unit or "neuron", method=method, ratio=row.ratio or 0, model=row.model_id or "",
        recall=row.score or 0, chance=row.chance or 0,
        left=_mean(_left(e.forget_memorized_count_before, e.forget_memorized_count_after) for e in edits),
        holdout=_mean(_left(e.holdout_memorized_count_before, e.holdout_memorized_count_after) for e in edits),
        cost=_mean(map(_cost, edits)), sources=(row.source, *(e.source for e in edits)),
    )  # fmt: skip


def _left(before: int | None, after: int | None) -> float | None:
    return 100 * after / before if before and after is not None else None


def _cost(row: MeasuredRow) -> float | None:
    if row.performance_before is None or row.performance_after is None:
        return None
    change = percent_change(row.performance_before, row.performance_after)
    return -change if row.is_share else change


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Link:
    """Spearman's rho between recall and an outcome of edits, with its interval over methods.

    Attributes:
        methods: how many, each in every stratum.
        strata: models at a ratio.
        within: mean of the rho within each stratum.
        pooled: rho over all strata together, ratios and models mixed.
    """

    methods: int
    strata: int
    within: Agreement
    pooled: Agreement


def link_of(pairs: Sequence[Pair], outcome: str) -> Link | None:
    """The link over pairs of one unit, measured in one way; None with fewer than three methods that all strata have."""
    cells = {(p.model, p.ratio, p.method): (p.recall, value) for p in pairs if (value := _outcome(p, outcome)) is not None}
    strata = sorted({(model, ratio) for model, ratio, _ in cells})
    methods = sorted(m for m in {m for *_, m in cells} if all((*stratum, m) in cells for stratum in strata))
    if len(methods) < 3:
        return None
    values: Values = np.array([[cells[(*stratum, method)] for method in methods] for stratum in strata])
    both = values[..., 0], values[..., 1]
    return Link(len(methods), len(strata), within_strata(*both), pooled_strata(*both))


def _outcome(pair: Pair, name: str) -> float | None:
    return {"left": pair.left, "holdout": pair.holdout, "cost": pair.cost}[name]
