"""Successive halving: find a method's best configuration on each model without running its whole grid.

What is chosen among are scoring passes: all ratios, or all epochs, that share one cost as much as one of them. A method with a single pass
on a model runs in full. Of the others, rung 0 runs every pass for one epoch, on half of the retain rows, and keeps a quarter of them, at
least one; where that leaves several, rung 1 runs those with all their epochs, on as many retain rows as make one epoch of them, and keeps
the best. Where the best of them forgot nothing, within the tolerance, a rung tells nothing, and all of them with a result stay: a deep
model may need several epochs before anything is forgotten. Both measure all artifact rows, but only a fifth of the test rows. The one
that is left runs as it would in the full grid, on all rows: its least two numbers of epochs, and then more, one by one, while more were
better or nothing is forgotten yet, and the edit is not perfect.

The score is M - P, the lowest is the best; 0 is no edit and -100 a perfect one. Rungs are sweeps of their own, in the sweep's folder
`rungs/`, so they are stopped, killed and started again like it, and what a rung keeps depends on its rows alone.
Source: Jamieson and Talwalkar 2016 (successive halving), with rungs chosen for edits of memorization.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeVar

from tinymem.mitigation.method import UNLEARNERS, parse_config
from tinymem.mitigation.run import chosen
from tinymem.recipe.plugins import store_plugins
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import Halving
from tinymem.results.nested import RequestColumn
from tinymem.results.row import MeasuredRow
from tinymem.results.store import Index, read_rows
from tinymem.runtime.files import canonical_json, content_id
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Progress
from tinymem.sweep.costs import Size
from tinymem.sweep.estimate import Estimator, MethodCost
from tinymem.sweep.plan import Plan
from tinymem.sweep.run import Engine, Sweep, run_sweep
from tinymem.sweep.work import PlannedRun, Rung, WorkUnit

RUNGS = "rungs"
PERFECT = -100.0
FIRST = Rung(0, retain=0.5, forget=None)
FORGET_ROWS = 256
"""Most forget rows of the second rung."""
NOTHING: RequestColumn = {"metrics": [], "ks": [], "robustness": None}

Score = Callable[[MeasuredRow], tuple[float, float]]
"""M - P of a row, and M; infinite without a result."""
K = TypeVar("K", bound=Hashable)
Arms = dict[tuple[str, int, str, str], list[WorkUnit]]
"""Scoring passes by checkpoint, seed, type of weights and method."""


class RunScore(NamedTuple):
    """What a run came to: M - P, a mean over its artifacts, and M of the artifact that it forgot most of."""

    total: float
    memorized: float


NO_RESULT = RunScore(math.inf, math.inf)
Scores = dict[str, RunScore]
"""Scores of runs by their ids; those without a result may be missing."""


class Scored(NamedTuple):
    """A scoring pass with the best score of its runs, and whether any of them forgot anything."""

    score: float
    forgot: bool
    unit: WorkUnit


def halve(sweep: Sweep, engine: Engine, score: Score, *, retry_failed: bool = False, progress: Progress | bool = True) -> Counter[str]:
    """Search a sweep's grids; returns the number of the runs that were made on all rows, by status.

    Args:
        sweep: with `search` in its recipe.
        engine: as of `run_sweep`.
        score: of a row, M - P and M; lower is better.
        retry_failed: whether failed runs are tried again.
        progress: as of `tinymem.run`.

    Raises:
        UserError: as `run_sweep`.
        Stopped: a signal came; the same command continues.
    """
    settings = sweep.recipe.search or Halving()
    if settings.keep == 1:
        return run_sweep(sweep, engine, retry_failed=retry_failed, progress=progress)
    search = Search(sweep, engine, score, settings.tolerance, retry_failed, progress)
    arms = arms_of(sweep.plan.groups)
    first = search.rung(arms, first_rung, lambda count: kept_of(count, settings))
    second = search.rung(first, second_rung, lambda _count: 1)
    searched = {key for key, units in arms.items() if len(units) > 1}
    passes = [stages(unit) if key in searched else [unit] for key, units in second.items() for unit in units]
    return search.in_full(passes)


def arms_of(units: Sequence[WorkUnit]) -> Arms:
    """Scoring passes by checkpoint, seed and method."""
    found: Arms = defaultdict(list)
    for unit in units:
        found[*unit.model_key, unit.method].append(unit)
    return dict(found)


def kept_of(count: int, settings: Halving) -> int:
    """How many of a method's passes the first rung leaves."""
    return max(1, int(count * settings.keep))


def first_rung(unit: WorkUnit) -> WorkUnit:
    """A pass for one epoch, on half of the retain rows."""
    return cheaper(unit, FIRST, 1)


def second_rung(unit: WorkUnit) -> WorkUnit:
    """A pass with all its epochs, on as many retain rows as make one epoch of them."""
    most = most_epochs([run.config for run in unit.runs])
    return cheaper(unit, Rung(1, retain=1 / max(1, most), forget=FORGET_ROWS), most)


def stages(unit: WorkUnit) -> list[WorkUnit]:
    """A pass in parts, in the order in which they are made: its runs with the two least numbers of epochs, then each further number."""
    values = sorted({_epochs(run) for run in unit.runs})
    together = [values[:2], *([value] for value in values[2:])]
    return [replace(unit, runs=[run for run in unit.runs if _epochs(run) in part]) for part in together]


def search_cost(
    estimator: Estimator, method: str, passes: Sequence[Sequence[JsonObject]], recipe: Recipe | Size, settings: Halving
) -> MethodCost:
    """Seconds of a search whose rungs tell passes apart, at most: both rungs, and on all rows the pass that takes longest."""
    cost, kept = MethodCost(), kept_of(len(passes), settings)
    longest = sorted(passes, key=lambda runs: max(estimator.run(method, options, recipe)[0] for options in runs), reverse=True)
    rungs = [(options[0], 1, FIRST.retain) for options in passes]
    if kept > 1:
        rungs += [(options[0], most := most_epochs(options), 1 / max(1, most)) for options in longest[:kept]]
    for options, epochs, share in rungs:
        values = {**options, **({"epochs": epochs} if "epochs" in options else {})}
        seconds, measure, source = estimator.run(method, values, recipe)
        cost.add(share * seconds, measure, source)
    estimator.group(cost, method, longest[0], recipe, shared=True)
    return cost


@dataclass(frozen=True)
class Search:
    """The sweep that is searched, and how its runs are made."""

    sweep: Sweep
    engine: Engine
    score: Score
    tolerance: float
    retry_failed: bool
    progress: Progress | bool

    def rung(self, arms: Arms, cheap: Callable[[WorkUnit], WorkUnit], keep: Callable[[int], int]) -> Arms:
        """Run the cheap form of each pass where a method has several, and keep the best; all where the best forgot nothing."""
        ranked = self.ranked({key: units for key, units in arms.items() if len(units) > 1}, cheap)
        kept = {key: left_of(found, keep(len(found))) for key, found in ranked.items()}
        return {**arms, **{key: [one.unit for one in found] for key, found in kept.items()}}

    def ranked(self, passes: Mapping[K, Sequence[WorkUnit]], cheap: Callable[[WorkUnit], WorkUnit]) -> dict[K, list[Scored]]:
        """Run the cheap form of each pass; the passes of each key with its score, the best first, equal ones in the order of the grid."""
        forms = {key: [(unit, cheap(unit)) for unit in units] for key, units in passes.items()}
        if not forms:
            return {}
        scores = self.scores(self.sweep.folder / RUNGS, [form for pairs in forms.values() for _, form in pairs])
        found = {key: [self._scored(unit, form.runs, scores) for unit, form in pairs] for key, pairs in forms.items()}
        return {key: sorted(scored, key=lambda one: one.score) for key, scored in found.items()}

    def _scored(self, unit: WorkUnit, runs: Sequence[PlannedRun], scores: Scores) -> Scored:
        return Scored(best_of(runs, scores), forgot(runs, scores, self.tolerance), unit)

    def in_full(self, passes: list[list[WorkUnit]]) -> Counter[str]:
        """Run the first part of each pass on all rows, and the next one while that may still find a better run."""
        made: list[WorkUnit] = []
        while passes:
            made += [parts[0] for parts in passes]
            scores = self.scores(self.sweep.folder, made)
            passes = [parts[1:] for parts in passes if len(parts) > 1 and goes_on(together(parts[0], made), scores, self.tolerance)]
        return self.statuses(made)

    def statuses(self, made: list[WorkUnit]) -> Counter[str]:
        """Number of the runs of some passes by status."""
        return replace(self.sweep, plan=Plan(groups=made), known=Index(self.sweep.folder).all()).statuses()

    def scores(self, folder: Path, units: list[WorkUnit]) -> Scores:
        """Run what is left of some passes; returns the score of each run."""
        store_plugins(self.sweep.recipe.plugins, self.sweep.folder)
        known = Index(folder).all() if folder.is_dir() else {}
        one = replace(self.sweep, folder=folder, plan=Plan(groups=units), known=known)
        run_sweep(one, self.engine, retry_failed=self.retry_failed, progress=self.progress)
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in read_rows(folder):
            found[row.id].append(self.score(row))
        return {run: RunScore(fmean(total for total, _ in scores), min(m for _, m in scores)) for run, scores in found.items()}


def tells(ranked: Sequence[Scored]) -> bool:
    """Whether a rung tells its passes apart: the best of them forgot something, or none has a result, so that all rows have none either.

    Where the best forgot nothing and a worse one did, at a higher cost, those above it are in the order of the grid.
    """
    return ranked[0].forgot or ranked[0].score == math.inf


def left_of(ranked: Sequence[Scored], count: int) -> list[Scored]:
    """The passes that a rung leaves: the best `count`, or where it does not tell them apart all that have a result."""
    return [*ranked[:count]] if tells(ranked) else [one for one in ranked if one.score < math.inf]


def goes_on(runs: Sequence[PlannedRun], scores: Scores, tolerance: float) -> bool:
    """Whether more epochs may help: the most epochs so far were the best, or nothing is forgotten, and the edit is not perfect yet."""
    best, most = best_of(runs, scores), max(map(_epochs, runs))
    better = best == best_of([run for run in runs if _epochs(run) == most], scores)
    return PERFECT + tolerance < best and (better or not forgot(runs, scores, tolerance))


def together(part: WorkUnit, made: Sequence[WorkUnit]) -> list[PlannedRun]:
    """The runs of a pass in the parts of it that were made."""
    return [run for unit in made if unit.name == part.name for run in unit.runs]


def best_of(runs: Sequence[PlannedRun], scores: Scores) -> float:
    """The best score among some runs; infinite where none has one."""
    return min(scores.get(run.id, NO_RESULT).total for run in runs)


def forgot(runs: Sequence[PlannedRun], scores: Scores, tolerance: float) -> bool:
    """Whether one of some runs removed more than the tolerance, in percent, of what is memorized of an artifact."""
    return any(scores.get(run.id, NO_RESULT).memorized < -tolerance for run in runs)


def _epochs(run: PlannedRun) -> int:
    return most_epochs([run.config])


def most_epochs(options: Sequence[JsonObject]) -> int:
    """The most epochs of some configurations; 0 of methods without any."""
    return max(value if isinstance(value := one.get("epochs"), int) else 0 for one in options)


def cheaper(unit: WorkUnit, rung: Rung, epochs: int) -> WorkUnit:
    """The form of a pass on a rung: each different configuration of its runs with so many epochs, where the method has any."""
    model = replace(unit.model, request=NOTHING)
    return replace(unit, name=content_id([unit.name, asdict(rung)], 16), model=model, runs=list(_runs(unit, rung, epochs)), rung=rung)


def _runs(unit: WorkUnit, rung: Rung, epochs: int) -> Iterator[PlannedRun]:
    method, seen = UNLEARNERS.get(unit.method), set[str]()
    for run in unit.runs:
        config: JsonObject = {**run.config, **({"epochs": epochs} if "epochs" in run.config else {})}
        if (key := canonical_json(config)) in seen:
            continue
        seen.add(key)
        name = content_id([unit.runs[0].id, config, asdict(rung)], 16)
        yield PlannedRun(name, config, chosen(parse_config(method, config)), files=run.files)
