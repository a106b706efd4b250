"""Result rows as figures see them: each method's configuration on one kind of model, averaged over seeds, with the paper's changes.

A change is in percent of the value before: of the share memorized (-100: nothing is left) and of accuracy or perplexity (0: unharmed).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tinymem.report.configuration import Configuration
from tinymem.report.configurations import ModelGroup, groups_of, in_order
from tinymem.report.figures.curve_inputs import Curve, curves_of
from tinymem.report.means import Mean, mean_of
from tinymem.report.selection import percent_change
from tinymem.results.collect import Results
from tinymem.results.nested import LayersColumn
from tinymem.results.row import LocalizationRow, MeasuredRow, TrainingRow
from tinymem.results.run_folder import RunRecord
from tinymem.results.step import series_of

# The four kinds of models of the paper, in the order of its figures; others follow.
PAPER_KINDS = ("math + noise", "math + backdoor", "language + noise", "language + backdoor")
Model = tuple[str | None, int | None, int | None, int | None]
"""Data or series, data's size, number of layers and epoch or step: equal for models that differ in seed only."""
FAMILIES = {"additive": "math", "multiplicative": "math", "wiki": "language"}


@dataclass(frozen=True)
class Point:
    """One configuration of a method on models that differ in seed only, on one artifact.

    Attributes:
        kind: data and artifact, as in `math + noise`; of a model that was trained elsewhere its series.
        series: name without the step of a model that was trained elsewhere, of which steps of training are kept; None of others.
        epoch: epochs trained; of a series steps.
        method: name, with the protocol where there are several.
        unit: the unit that the method edits: `neuron`, `weight` or `model`; None in rows without it.
        options: of the method, as text.
        memorized: percent of scored rows memorized afterwards.
        memorized_change: in percent; None where it is not defined (nothing was memorized before).
        performance: accuracy (%) or perplexity afterwards.
        performance_change: in percent of the value before.
        memorized_interval: width of the 95 % interval of `memorized`, of one seed; None without counts.
        memorized_change_interval: the same of `memorized_change`.
        performance_interval: the same of `performance`; None of perplexity.
        performance_change_interval: the same of `performance_change`.
        neurons_zeroed: percent of the feed-forward neurons; None where the rows lack the counts.
        weights_zeroed: percent of the feed-forward weights.
        best: whether A.3.5 chooses it among the method's configurations.
        front: whether no configuration of any method on these models forgets more and loses less.
        sources: the rows behind it, one per seed.
    """

    kind: str
    artifact: str
    series: str | None
    data: str | None
    data_size: int | None
    n_layer: int | None
    epoch: int | None
    method: str
    unit: str | None
    options: str
    metric: str
    seeds: int
    memorized: float | None
    memorized_change: float | None
    performance: float | None
    performance_change: float | None
    memorized_interval: float | None
    memorized_change_interval: float | None
    performance_interval: float | None
    performance_change_interval: float | None
    neurons_zeroed: float | None
    weights_zeroed: float | None
    best: bool
    front: bool
    sources: tuple[str, ...]

    @property
    def model(self) -> Model:
        """The model that was edited, whatever its seed."""
        return self.data or self.series, self.data_size, self.n_layer, self.epoch


@dataclass(frozen=True)
class Inputs:
    """The inputs of all figures: averaged points, training curves, result rows, run records, rows of localization and trained models."""

    points: list[Point] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    rows: list[MeasuredRow] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    localization: list[LocalizationRow] = field(default_factory=list)
    trained: list[TrainingRow] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """All methods with a result, in the paper's order: a method has one look in all figures."""
        return in_order(p.method for p in self.points)

    @property
    def best(self) -> list[Point]:
        """The best configuration of each method on each kind of model, of those with both changes."""
        return [p for p in self.changed if p.best]

    @property
    def changed(self) -> list[Point]:
        """The points that have both changes."""
        return [p for p in self.points if p.memorized_change is not None and p.performance_change is not None]


def inputs_of(results: Results) -> Inputs:
    """Points and curves of any number of folders."""
    return Inputs(list(_points(results)), curves_of(results.records), results.rows, results.records, results.localization, results.trained)


def kind_of(data: str | None, artifact: str) -> str:
    """Kind of model and artifact: `math + noise`; only the artifact where the row does not name the training data."""
    return f"{FAMILIES.get(data, data)} + {artifact}" if data else artifact


def series_in(row: MeasuredRow) -> str | None:
    """The name, without its step, of a model of unknown data at a known step of training; None of other rows."""
    return None if row.data or row.step is None or not row.model_name else series_of(row.model_name)


def is_over_steps(models: Iterable[tuple[str | None, int | None]]) -> bool:
    """Whether a series is there at two steps, of the (series, step) of models that were trained elsewhere."""
    return any(count > 1 for count in Counter(series for series, _ in set(models)).values())


def in_paper_order(kinds: Iterable[str]) -> list[str]:
    """Kinds of models and artifacts, the paper's four first."""
    return sorted(set(kinds), key=lambda k: (PAPER_KINDS.index(k) if k in PAPER_KINDS else len(PAPER_KINDS), k))


def _points(results: Results) -> Iterable[Point]:
    """Points of all models, one pass for each epoch, since groups compare models at one epoch."""
    several = len({row.protocol for row in results.rows}) > 1
    by_epoch: dict[int | None, list[MeasuredRow]] = {}
    for row in results.rows:
        by_epoch.setdefault(row.epoch, []).append(row)
    for rows in by_epoch.values():
        for group in groups_of(Results(rows)):
            for artifact in group.settings:
                yield from _points_of(group, artifact, several)


def _points_of(group: ModelGroup, artifact: str, several: bool) -> Iterable[Point]:
    settings = group.settings[artifact]
    best = {id(group.best(artifact, method)) for method in {s.method for s in settings}}
    front = {id(setting) for setting in group.front(artifact)}
    for setting in settings:
        yield _point(setting, artifact, several, id(setting) in best, id(setting) in front)


def _point(setting: Configuration, artifact: str, several: bool, best: bool, front: bool) -> Point:
    row = setting.rows[0]
    memorized, performance = setting.memorized("after"), setting.performance("after")
    changes = _changes(setting)
    return Point(
        kind=series_in(row) or kind_of(row.data, artifact),
        artifact=artifact,
        series=series_in(row),
        data=row.data,
        data_size=row.data_size,
        n_layer=row.n_layer,
        epoch=row.step if series_in(row) else row.epoch,
        unit=row.unit,
        method=f"{setting.method} ({row.protocol})" if several else setting.method,
        options=setting.options,
        metric=setting.metric,
        seeds=setting.seeds,
        memorized=memorized.mean if memorized else None,
        memorized_change=changes[0],
        performance=performance.mean if performance else None,
        performance_change=changes[1],
        memorized_interval=setting.width("memorized"),
        memorized_change_interval=_in_percent_of(setting.width("memorized"), setting.memorized("before")),
        performance_interval=setting.width("performance"),
        performance_change_interval=_in_percent_of(setting.width("performance"), setting.performance("before")),
        neurons_zeroed=_zeroed(setting, "neuron"),
        weights_zeroed=_zeroed(setting, "weight"),
        best=best,
        front=front,
        sources=setting.sources,
    )


def _changes(setting: Configuration) -> tuple[float | None, float | None]:
    """Changes in percent of memorized share and performance, between means over seeds; None where one is not finite."""
    candidate = setting.candidate()
    if candidate is None:
        return None, None
    memorized = percent_change(candidate.memorized_before, candidate.memorized_after) if candidate.memorized_before else None
    performance = percent_change(candidate.performance_before, candidate.performance_after) if candidate.performance_before else None
    return _finite(memorized), _finite(performance)


def _in_percent_of(width: float | None, whole: Mean | None) -> float | None:
    return 100 * width / whole.mean if width is not None and whole and whole.mean else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def zeroed_of(counts: LayersColumn, unit: str | None) -> tuple[list[int], list[int]]:
    """Neurons or weights that an edit zeroed, and their total number, by block."""
    return (counts["neurons"], counts["of_neurons"]) if unit == "neuron" else (counts["weights"], counts["of_weights"])


def _zeroed(setting: Configuration, unit: str) -> float | None:
    """Mean over seeds of the percentage of feed-forward neurons or weights that the edit zeroed."""
    counts = [zeroed_of(row.edited_by_layer, unit) for row in setting.rows if row.is_ok and row.edited_by_layer]
    found = mean_of(100 * sum(zeroed) / sum(there) for zeroed, there in counts if sum(there))
    return found.mean if found else None
