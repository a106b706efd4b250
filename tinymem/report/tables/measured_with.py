"""What tells apart results of the INJ and DEL benchmarks on one model: the benchmark's options, its sequences, its seed and the device.

Results that differ in one of them share no table, no pair and no mean; words say in what they differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from tinymem.report.cells import plain
from tinymem.report.tables.table import anchor
from tinymem.results.row import LocalizationRow
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import Json, JsonObject

BESIDE = ("reached", "change", "sequences", "device", "rows_id")
"""What follows from options or steps as a rule, and so is named only where they do not tell results apart."""
INJECTION = ("reached", "steps", "change")
"""Columns of an injection, which tell apart results of an older TinyMem that do not hold the options of the benchmark."""


def words_of(rows: Sequence[LocalizationRow]) -> list[str]:
    """Of each row what tells its benchmark from others of the same model; empty where there are no others."""
    known = _with_settings(rows)
    return _words(rows, known, lambda row: (*_benchmark(row), row.artifact))


def words_across(rows: Sequence[LocalizationRow]) -> list[str]:
    """Of each row what tells its benchmark from others of its model, in names that all models share; empty where no model has others.

    Types of weights and scopes tell apart too. Rows of equal words have each model once, so that numbers of several models may be compared.
    """
    own: list[JsonObject] = [{"weights": row.dtype or "float32", "scope": row.scope} for row in rows]
    known = [{**settings, **more} for settings, more in zip(_with_settings(rows), own, strict=True)]
    telling = _telling_by(rows, known, lambda row: (*_benchmark(row), row.artifact))
    names = list(dict.fromkeys(name for those in telling.values() for name in those))
    return [_sentence(names, one) for one in known]


def by_words(rows: Sequence[LocalizationRow], words: Sequence[str]) -> dict[str, list[LocalizationRow]]:
    """The rows by their words, in order of appearance; one number of a scorer that several runs found is there once."""
    found: dict[str, dict[str, LocalizationRow]] = defaultdict(dict)
    for row, told in zip(rows, words, strict=True):
        found[told].setdefault(canonical_json([*_number(row), row.score, list(row.values or ())]), row)
    return {told: list(part.values()) for told, part in found.items()}


def by_injection(rows: Sequence[LocalizationRow]) -> list[list[LocalizationRow]]:
    """Rows of one table in parts, one an injection and named by it, where a scorer is there several times; else all as they are."""
    if not repeated(rows):
        return [list(rows)]
    found: dict[str, list[LocalizationRow]] = defaultdict(list)
    injections: list[JsonObject] = [{name: row[name] for name in INJECTION if row[name] is not None} for row in rows]
    for row, words in zip(rows, _words(rows, injections, _benchmark), strict=True):
        found[words].append(_named(row, words))
    return list(found.values())


def named_apart(rows: Sequence[LocalizationRow]) -> list[LocalizationRow]:
    """The rows, in which a model that was measured in several ways is as many models, each named by what differs."""
    return [_named(row, words) for row, words in zip(rows, words_of(rows), strict=True)]


def repeated(rows: Sequence[LocalizationRow]) -> set[str]:
    """Ids of rows that stand for one number of one scorer with other rows, which nothing but the id tells from them."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[canonical_json(_number(row))].add(row.id)
    return {one for ids in found.values() if len(ids) > 1 for one in ids}


def left_out_note(names: Iterable[str]) -> list[str]:
    """A sentence on results that `repeated` finds, which comparisons leave out; none without names."""
    told = ", ".join(sorted(set(names)))
    return [f"Left out, since no stored option tells them from other results of the same scorer: {told}."] if told else []


def _number(row: LocalizationRow) -> list[Json]:
    """Which number of which scorer and model a row has."""
    return [*_benchmark(row), row.artifact, row.method, row.options, row.ratio, row.scope, row.top, row.score_name]


def _benchmark(row: LocalizationRow) -> tuple[str, str | None, str]:
    return row.model_id or row.run or "", row.benchmark, row.unit or "neuron"


def _named(row: LocalizationRow, words: str) -> LocalizationRow:
    if not words:
        return row
    return replace(
        row,
        model_id=anchor(f"{row.model_id or row.run or 'model'}-{words}"),
        model_name=f"{row.model_name or row.run or 'model'}, {words}",
    )


def _with_settings(rows: Sequence[LocalizationRow]) -> list[JsonObject]:
    """What each row was measured with; one of an older TinyMem with what all others of its model, seed and number of sequences were."""
    beside: list[JsonObject] = [{"sequences": row.sequences, "seed": row.seed, "device": row.device_type} for row in rows]
    places = [canonical_json([*_benchmark(row), row.artifact, own]) for row, own in zip(rows, beside, strict=True)]
    known: dict[str, dict[str, JsonObject]] = defaultdict(dict)
    for row, place in zip(rows, places, strict=True):
        if row.settings is not None:
            known[place][canonical_json(row.settings)] = row.settings
    only = {place: next(iter(found.values())) for place, found in known.items() if len(found) == 1}
    return [{**(row.settings or only.get(place) or {}), **own} for row, place, own in zip(rows, places, beside, strict=True)]


def _words(rows: Sequence[LocalizationRow], known: Sequence[JsonObject], group: Callable[[LocalizationRow], Hashable]) -> list[str]:
    """Names and values of what differs within each group."""
    telling = _telling_by(rows, known, group)
    return [_sentence(telling[group(row)], one) for row, one in zip(rows, known, strict=True)]


def _telling_by(
    rows: Sequence[LocalizationRow], known: Sequence[JsonObject], group: Callable[[LocalizationRow], Hashable]
) -> dict[Hashable, list[str]]:
    """The names of what differs within each group."""
    found: dict[Hashable, list[JsonObject]] = defaultdict(list)
    for row, one in zip(rows, known, strict=True):
        found[group(row)].append(one)
    return {place: _telling(those) for place, those in found.items()}


def _sentence(names: Sequence[str], one: JsonObject) -> str:
    return ", ".join(_said(name, one) for name in names if name in one or name not in BESIDE)


def _telling(known: Sequence[JsonObject]) -> list[str]:
    """The names of what differs, in order, those of `BESIDE` only as far as the others leave results alike."""
    names = dict.fromkeys(name for one in known for name in one)
    differ = [name for name in names if len({plain(one[name]) for one in known if name in one}) > 1]
    told = [name for name in differ if name not in BESIDE]
    for name in (name for name in BESIDE if name in differ):
        if len({_values(one, told) for one in known}) < len({_values(one, differ) for one in known}):
            told.append(name)
    return told


def _values(one: JsonObject, names: Sequence[str]) -> str:
    return canonical_json([one.get(name) for name in names])


def _said(name: str, one: JsonObject) -> str:
    value = one.get(name, "unknown")
    if name == "rows_id":
        return f"rows {plain(value)[:6]}"
    return f"{name} {'default' if value is None else f'{value:g}' if isinstance(value, float) else plain(value)}"
