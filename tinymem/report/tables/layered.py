"""Rows of localization by layer of each model, those of unequal options apart: what a technique's options do not concern is with each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tinymem.recipe.layers import LayersRecipe
from tinymem.report.cells import plain
from tinymem.report.tables.table import anchor
from tinymem.results.row import LocalizationRow
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import JsonObject

SHARED = ("context", "binarize", "rows", "clean", "clean_rows", "seed")
"""Options of all techniques, which choose the decisions."""
Options = dict[str, str]
Place = tuple[str, str, str]
"""Model, artifact and choice of decisions."""


@dataclass(frozen=True)
class OfModel:
    """All rows of one model, artifact and choice of options; `apart` says those that tell it from others."""

    name: str
    rows: tuple[LocalizationRow, ...]
    settings: str = ""
    apart: str = ""

    def find(self, method: str, score: str, **options: str) -> list[LocalizationRow]:
        """Rows of a technique's number with exactly these options."""
        return [r for r in self.rows if (r.method, r.score_name) == (method, score) and r.options == options]

    def one(self, method: str, score: str, **options: str) -> LocalizationRow | None:
        """The row of a number of the whole model, if it is there and defined."""
        return next((r for r in self.find(method, score, **options) if r.score is not None), None)

    def weights(self, method: str) -> list[float]:
        """A technique's weight of each layer; nothing where it has none."""
        found = sorted(self.find(method, "weight"), key=lambda r: r.layer or 0)
        return [r.score or 0.0 for r in found]

    def key(self, prefix: str) -> str:
        """A file name and anchor for a table or figure of this model alone."""
        first, told = self.rows[0], f"-{self.apart}" if self.apart else ""
        return anchor(f"{prefix}-{first.model_id or first.run}-{first.artifact}-{first.id}{told}")

    @property
    def techniques(self) -> list[str]:
        """The techniques that weigh layers."""
        return [method for method in dict.fromkeys(r.method for r in self.rows) if self.weights(method)]


def models_of(rows: Iterable[LocalizationRow]) -> list[OfModel]:
    """The rows of each model, artifact and choice of decisions, in order of appearance; of techniques with unequal options one for each.

    What has none of the unequal options is with every one of them.
    """
    places: dict[Place, dict[str, list[LocalizationRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.benchmark == "layers" and row.is_ok:
            places[row.model_id or row.run or "", row.artifact, _choice(row)][row.id].append(row)
    known = {place: _with_settings(results) for place, results in places.items()}
    names = [name for results in known.values() for name in _differing([_own(found[0]) for found in results.values()])]
    return [model for place, results in known.items() for model in _of_place(place, results, list(dict.fromkeys(names)))]


def _with_settings(results: Mapping[str, list[LocalizationRow]]) -> dict[str, list[LocalizationRow]]:
    """The results of one place, those of an older TinyMem with the settings that all others share, of the rest with unknown ones."""
    known = [row.settings for found in results.values() for row in found if row.settings is not None]
    if not known:
        return dict(results)
    usual: JsonObject = {name: value if all(other.get(name) == value for other in known) else "unknown" for name, value in known[0].items()}
    return {one: [replace(row, settings=usual) if row.settings is None else row for row in found] for one, found in results.items()}


def _of_place(place: Place, results: Mapping[str, list[LocalizationRow]], names: list[str]) -> list[OfModel]:
    """The models of one place, one for each set of the named options that no other set includes; the same options twice by their ids."""
    told = {one: {name: value for name, value in _own(found[0]).items() if name in names} for one, found in results.items()}
    alike: dict[str, list[str]] = defaultdict(list)
    for one, found in results.items():
        alike[canonical_json([found[0].method, _own(found[0])])].append(one)
    twins = {one for ids in alike.values() if len(ids) > 1 for one in ids}
    single = [one for one in results if one not in twins]
    sets = {canonical_json(told[one]): told[one] for one in single}
    largest = [one for one in sets.values() if not any(one != other and one.items() <= other.items() for other in sets.values())]
    models = []
    for chosen in sorted(largest, key=canonical_json):
        members = [row for one in single if told[one].items() <= chosen.items() for row in results[one]]
        models.append(_model(members, place, _said(chosen)))
    return [*models, *(_model(results[one], place, _said({**told[one], "run": one[:6]})) for one in results if one in twins)]


def _model(rows: list[LocalizationRow], place: Place, apart: str) -> OfModel:
    settings = "".join([place[2], *([f", {apart}"] if apart else [])])
    return OfModel(f"{rows[0].model_name or rows[0].run} ({rows[0].run}){settings}", tuple(rows), settings.removeprefix(", "), apart)


def _choice(row: LocalizationRow) -> str:
    """The options that choose decisions, where they are not the defaults; and the seed other than 0."""
    given, usual = row.config or {}, LayersRecipe().model_dump(mode="json", include=set(SHARED))
    told = [f"{name} {given[name]}" for name in SHARED if name in given and given[name] != usual[name]]
    return "".join(f", {text}" for text in told)


def _own(row: LocalizationRow) -> Options:
    """A technique's own options, those in sections by full names; what it was compared with; the weights' type, the device, the corpus."""
    found: Options = {name: plain(value) for name, value in (row.settings or {}).items()}
    for name, value in (row.config or {}).items():
        if name not in (*SHARED, "artifact"):
            parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
            found |= {key: plain(part) for key, part in parts.items()}
    corpus = (row.corpus_sha256 or "")[:6]
    return {**found, "weights": row.dtype or "float32", "device": row.device_type or "", "corpus": corpus}


def _differing(known: list[Options]) -> list[str]:
    values: dict[str, set[str]] = defaultdict(set)
    for one in known:
        for name, value in one.items():
            values[name].add(value)
    return [name for name, found in values.items() if len(found) > 1]


def _said(options: Options) -> str:
    return ", ".join(f"{name} {'default' if value == 'null' else value}" for name, value in options.items())
