"""Contests: find each model's best run among all methods, where `halving` finds the best run of every method.

On a model the scoring passes of all methods compete. Rung 0 runs each in a cheap form: of methods with epochs one, on half of the retain
rows and all forget rows; of others on half of the retain rows and at most 64 forget rows. Those whose passes grow with the ratio (Greedy)
have all rows, but run up to a tenth of their largest ratio. A quarter of all passes stays. Rung 1 runs those that have several epochs with
all of them, on as many retain rows as make one epoch of them, and at most 256 forget rows; the score of the others stands. The passes that
are left then run as in the full grid, in the order of their scores, until a run is within the tolerance of a perfect edit, or no pass that
is left scored better on its rung than the best run so far, by more than the tolerance. A rung whose best pass forgot nothing, within the
tolerance, tells nothing: all passes with a result stay, and after rung 1 all of them run.

A method whose cheap form is far behind is dropped, though its whole grid might have won: `Fate` says at which rung and by what score.
Scores, rungs' rows and going on where it was stopped are those of `halving`.
Source: Jamieson and Talwalkar 2016 (successive halving), over methods and their options at once as in Thornton et al. 2013 (Auto-WEKA).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import Halving
from tinymem.runtime.files import canonical_json, write_json
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Progress
from tinymem.sweep.costs import Size, size_of
from tinymem.sweep.estimate import Estimator, MethodCost
from tinymem.sweep.halving import (
    FIRST,
    PERFECT,
    Score,
    Scored,
    Scores,
    Search,
    best_of,
    cheaper,
    first_rung,
    goes_on,
    halve,
    kept_of,
    left_of,
    most_epochs,
    second_rung,
    stages,
    tells,
    together,
)
from tinymem.sweep.run import Engine, Sweep, kept_workers
from tinymem.sweep.work import ModelKey, Rung, WorkUnit

FATES = "contest.json"
FORGET_ROWS = 64
"""Most forget rows of the first rung, of methods without epochs: their scores are means over rows."""
SCORED = Rung(0, retain=FIRST.retain, forget=FORGET_ROWS)
GROWING, SHORT = Rung(0, retain=1.0, forget=None), 0.1
"""Of a method whose passes grow with the ratio: its rows on the first rung, and its largest ratio there, as a share of its largest."""


@dataclass(frozen=True)
class Fate:
    """What became of a method on a model.

    Attributes:
        model: name of its run or checkpoint.
        method: the method's name.
        passes: its scoring passes.
        first: their best score on the first rung, M - P with its sign: lower is better; None without a result.
        form: its cheap form on the first rung, in words.
        kept: passes that the first rung left.
        second: their best score on the second rung.
        full: best score on all rows, of the passes that came so far.
        dropped: the rung after which none of its passes was left, or "" of methods that ran on all rows.
    """

    model: str
    method: str
    passes: int
    first: float | None
    form: str
    kept: int
    second: float | None
    full: float | None
    dropped: str


def search(sweep: Sweep, engine: Engine, score: Score, *, retry_failed: bool = False, progress: Progress | bool = True) -> Counter[str]:
    """Search a sweep as its recipe says, by halving or as a contest; arguments, result and errors as of `halve`."""
    settings = sweep.recipe.search or Halving()
    with kept_workers(engine):
        if settings.is_contest:
            return contest(Search(sweep, engine, score, settings.tolerance, retry_failed, progress), settings)
        return halve(sweep, engine, score, retry_failed=retry_failed, progress=progress)


def contest(searching: Search, settings: Halving) -> Counter[str]:
    """Run a contest on each model, and write the methods' fates into the sweep's folder; returns the runs on all rows, by status."""
    entered = _by_model(searching.sweep.plan.groups)
    first = searching.ranked({key: units for key, units in entered.items() if len(units) > 1}, trial)
    kept = {key: left_of(found, kept_of(len(found), settings)) for key, found in first.items()}
    second = searching.ranked({key: [one.unit for one in found] for key, found in kept.items()}, second_trial)
    finals = [_Final([*second.get(key, [Scored(0.0, False, unit) for unit in units])]) for key, units in entered.items()]
    made, scores = list[WorkUnit](), Scores()
    while further := [part for final in finals if (part := final.next_part(scores, settings.tolerance)) is not None]:
        made += further
        scores = searching.scores(searching.sweep.folder, made)
    _write_fates(searching.sweep.folder, [fate for key in first for fate in _fates(first[key], second[key], made, scores)])
    return searching.statuses(made)


def trial(unit: WorkUnit) -> WorkUnit:
    """A pass on the first rung."""
    if most_epochs([run.config for run in unit.runs]):
        return first_rung(unit)
    return cheaper(_short(unit), GROWING, 1) if _grows(unit.method) else cheaper(unit, SCORED, 1)


def second_trial(unit: WorkUnit) -> WorkUnit:
    """A pass on the second rung; where it has no more than one epoch, its form on the first, which has its rows."""
    return second_rung(unit) if most_epochs([run.config for run in unit.runs]) > 1 else trial(unit)


def contest_costs(
    estimator: Estimator, passes: Mapping[str, Sequence[Sequence[JsonObject]]], recipe: Recipe | Size, settings: Halving
) -> dict[str, MethodCost]:
    """Seconds by method of a contest on one model, at most where the first pass on all rows ends it: rungs, and the longest pass."""
    found = {method: MethodCost() for method in passes}
    every = [(method, options) for method, each in passes.items() for options in each]
    for method, options in every:
        _add_trial(estimator, found[method], method, options, recipe)
    lengths = [max(estimator.run(method, one, recipe)[0] for one in options) for method, options in every]
    order = [every[i] for i in sorted(range(len(every)), key=lambda i: -lengths[i])]
    several = [(method, options) for method, options in order if most_epochs(options) > 1]
    for method, options in several[: kept_of(len(every), settings)]:
        seconds, measure, source = estimator.run(method, {**options[0], "epochs": most_epochs(options)}, recipe)
        found[method].add(seconds / most_epochs(options), measure, source)
    estimator.group(found[order[0][0]], *order[0], recipe, shared=True)
    return found


def stored_fates(folder: Path) -> list[Fate]:
    """The fates that a contest in a sweep's folder has written; none without one."""
    path = folder / FATES
    return [Fate(**values) for values in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


@dataclass
class _Final:
    """A model's passes that are left, in the order in which they run on all rows."""

    left: list[Scored]
    ranked: bool = field(init=False)
    """Whether their scores on the rung tell them apart; else all of them run."""
    parts: list[WorkUnit] = field(default_factory=list)
    """Of the pass at work, those that are not made yet."""
    made: list[WorkUnit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ranked = tells(self.left)

    def next_part(self, scores: Scores, tolerance: float) -> WorkUnit | None:
        """The next part of a pass to run, by the scores of those that were made; None: the best is found."""
        best = best_of([run for unit in self.made for run in unit.runs], scores) if self.made else math.inf
        if best <= PERFECT + tolerance:
            return None
        if self.parts and goes_on(together(self.parts[0], self.made), scores, tolerance):
            part = self.parts.pop(0)
        elif self.left and (not self.made or not self.ranked or self.left[0].score < best - tolerance):
            part, *self.parts = stages(self.left.pop(0).unit)
        else:
            return None
        self.made.append(part)
        return part


def _by_model(units: Sequence[WorkUnit]) -> dict[ModelKey, list[WorkUnit]]:
    found: dict[ModelKey, list[WorkUnit]] = defaultdict(list)
    for unit in units:
        found[unit.model_key].append(unit)
    return dict(found)


def _short(unit: WorkUnit) -> WorkUnit:
    """The runs of a pass at its smaller ratios, at least one."""
    ratios = [_ratio(run.config) for run in unit.runs]
    most = max(SHORT * max(ratios), min(ratios))
    return replace(unit, runs=[run for run, ratio in zip(unit.runs, ratios, strict=True) if ratio <= most])


def _grows(method: str) -> bool:
    """Whether a method's passes grow with the ratio."""
    return UNLEARNERS.get(method).steps is not None


def _ratio(options: JsonObject) -> float:
    return float(ratio) if isinstance(ratio := options.get("ratio"), int | float) else 0.0


def _add_trial(estimator: Estimator, cost: MethodCost, method: str, options: Sequence[JsonObject], recipe: Recipe | Size) -> None:
    """Add a pass on the first rung."""
    few, share = list(options), min(1.0, FORGET_ROWS / max(1, size_of(recipe).forget))
    if most_epochs(options):
        few, share = [*{canonical_json(one): one for one in ({**one, "epochs": 1} for one in options)}.values()], FIRST.retain
    elif _grows(method):
        most, share = max(SHORT * max(map(_ratio, options)), min(map(_ratio, options))), GROWING.retain
        few = [one for one in options if _ratio(one) <= most]
    whole = MethodCost()
    estimator.group(whole, method, few, recipe, shared=True)
    cost.runs, cost.groups = cost.runs + len(few), cost.groups + 1
    cost.shared, cost.alone, cost.measure = (
        cost.shared + share * whole.shared,
        cost.alone + share * whole.alone,
        cost.measure + whole.measure,
    )
    for source, runs in whole.sources.items():
        cost.sources[source] += runs


def _fates(first: Sequence[Scored], second: Sequence[Scored], made: Sequence[WorkUnit], scores: Scores) -> list[Fate]:
    """The fates of a model's methods, in the order of their best scores on the first rung."""
    names = dict.fromkeys(one.unit.method for one in first)
    parts = [unit for unit in made if unit.model_key == first[0].unit.model_key]
    return [_fate(_of(name, first), _of(name, second), [part for part in parts if part.method == name], scores) for name in names]


def _fate(first: Sequence[Scored], second: Sequence[Scored], made: Sequence[WorkUnit], scores: Scores) -> Fate:
    unit = first[0].unit
    return Fate(
        model=str(unit.model.identity.run),
        method=unit.method,
        passes=len(first),
        form=_form_of(trial(unit)),
        first=_finite(first[0].score),
        kept=len(second),
        second=_finite(second[0].score) if second else None,
        full=_finite(best_of([run for part in made for run in part.runs], scores)) if made else None,
        dropped="" if made else "second rung" if second else "first rung",
    )


def _of(method: str, scored: Sequence[Scored]) -> list[Scored]:
    return [one for one in scored if one.unit.method == method]


def _form_of(form: WorkUnit) -> str:
    """A pass on the first rung in words."""
    if form.rung == GROWING:
        return f"ratios up to {max(_ratio(run.config) for run in form.runs):g}"
    return f"{'1 epoch' if form.rung == FIRST else f'{FORGET_ROWS} forget rows'}, {FIRST.retain:.0%} of retain rows"


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _write_fates(folder: Path, fates: Sequence[Fate]) -> None:
    write_json(folder / FATES, [asdict(fate) for fate in fates])
