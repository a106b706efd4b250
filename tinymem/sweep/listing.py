"""Counts of a planned sweep: runs and scoring passes by method, their costs, and the paper's numbers for comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from tinymem.recipe import paper
from tinymem.recipe.recipe import Recipe
from tinymem.results.store import ROW_BYTES
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import JsonObject
from tinymem.sweep.contest import contest_costs
from tinymem.sweep.costs import Size
from tinymem.sweep.estimate import Estimator, MethodCost
from tinymem.sweep.halving import search_cost
from tinymem.sweep.plan import Choice, Picked
from tinymem.sweep.run import Sweep

PART_BYTES, PARQUET_ROW_BYTES = 40_000, 3_000
"""Bytes of a Parquet part, and of each row in it, measured on sweeps of 2 to 400 runs and rounded up."""


@dataclass
class Counts:
    """Numbers of models, runs and scoring passes of a sweep."""

    models: int = 0
    trained: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Runs removed by exclusions, by method."""


def count(sweep: Sweep) -> Counts:
    """Count runs and scoring passes by method, of trained and untrained models."""
    counts = Counts()
    for picked in sweep.plan.picked:
        counts.models += 1
        counts.trained += picked.model.checkpoint is not None
        counts.runs.update(choice.call.name for choice in picked.kept)
        counts.dropped.update(choice.call.name for choice in picked.dropped)
        counts.groups.update(name for name, _ in _passes(sweep, picked.kept))
    return counts


@dataclass
class Left:
    """What is left of a sweep: runs of trained models and bytes of their rows, by method, and bytes that are needed on the way."""

    runs: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    passing: int = 0
    """Of rows that are in a file a run until they are compacted."""


def left_over(sweep: Sweep) -> Left:
    """Count the runs that are left, with a row for each artifact of their model."""
    artifacts = {str(model.checkpoint): len(model.recipe.artifacts) if model.recipe else 1 for model in sweep.models}
    left, most = Left(), 0
    for group in sweep.left():
        rows = max(1, artifacts[group.model.checkpoint])
        left.runs[group.method] += len(group.runs)
        left.bytes[group.method] += PARQUET_ROW_BYTES * rows * len(group.runs)
        most = max(most, rows)
    left.passing = PART_BYTES + ROW_BYTES * most * min(left.runs.total(), sweep.recipe.compact_every)
    return left


def explain(counts: Counts, sweep: Sweep) -> str:
    """The arithmetic behind a sweep's number of runs, in words."""
    grid = Counter(choice.call.name for picked in sweep.plan.picked[:1] for choice in [*picked.kept, *picked.dropped])
    beyond = [name for name in grid if name not in paper.GRID]
    dropped = ", ".join(f"{n:,} of {name}" for name, n in counts.dropped.most_common()) or "none"
    left_out = f"{counts.dropped.total():,} left out ({dropped})"
    here = f"{grid.total()} runs a checkpoint x {counts.models:,} checkpoints - {left_out} = {counts.runs.total():,}"
    return here + (f"; not the paper's methods: {', '.join(beyond)}" if beyond else "")


def paper_counts() -> str:
    """The paper's and the published code's numbers, to compare with."""
    grid, counted, models = sum(paper.GRID.values()), sum(paper.RUNS.values()), paper.CHECKPOINTS
    fewer, published = counted - paper.EXPERIMENTS, paper.PUBLISHED_GRID * models
    ig, greedy = paper.LARGEST * paper.GRID["ig"], paper.LARGEST + paper.LARGEST_TEXT
    return (
        f"The paper's grids (A.3.5) give {grid} runs a checkpoint: {grid * models:,} over its {models}\n"
        f"checkpoints, and {counted:,} after its exceptions: {ig} of IG ({paper.GRID['ig']} at each of {paper.LARGEST} checkpoints of 16 "
        f"layers) and\n{greedy} of Greedy at 5 % (1 at each of those, and of {paper.LARGEST_TEXT} of text). It counts "
        f"{paper.EXPERIMENTS:,} experiments, {fewer:,} fewer,\n"
        f"and does not say which. The published code runs other grids, {paper.PUBLISHED_GRID} runs a checkpoint ({published:,} in all): 3\n"
        "ratios for the neuron methods, 5 for Greedy, Durable, Durable-agg and SOU, and 10 ratios up to 80 % for the subnets."
    )


def costs(sweep: Sweep, estimator: Estimator, *, left_only: bool = False) -> dict[str, MethodCost]:
    """Seconds by method, of all runs or of those that are left; models of one size and recipe are estimated once."""
    found: dict[str, MethodCost] = {}
    known = sweep.known if left_only else {}
    if known and not sweep.recipe.search:
        bases = {str(model.checkpoint): model.basis for model in sweep.models}
        for group in sweep.left():
            cost = found.setdefault(group.method, MethodCost())
            basis = bases[group.model.checkpoint]
            assert basis is not None, "a model that has groups is here"
            estimator.group(cost, group.method, [run.config for run in group.runs], basis, shared=True)
        return found
    kinds: dict[str, tuple[Picked, int]] = {}
    for picked in sweep.plan.picked:
        if left_only and picked.model.checkpoint is None:
            continue
        if picked.model.basis is None:
            continue
        key = canonical_json([_signature(picked.model.basis), len(picked.kept), [id(choice) for choice in picked.kept]])
        kinds[key] = (picked, kinds[key][1] + 1 if key in kinds else 1)
    for picked, times in kinds.values():
        by_method: dict[str, list[list[JsonObject]]] = defaultdict(list)
        for name, options in _passes(sweep, picked.kept):
            by_method[name].append(options)
        assert picked.model.basis is not None, "others were left out"
        for name, cost in _costs(sweep, estimator, by_method, picked.model.basis).items():
            _add(found.setdefault(name, MethodCost()), cost, times)
    return found


def _signature(basis: Recipe | Size) -> JsonObject:
    """What models of one size and recipe have in common."""
    if isinstance(basis, Size):
        return asdict(basis)
    return basis.model_dump(mode="json", include={"data", "artifacts", "model", "mitigation", "evaluation"})


def _costs(
    sweep: Sweep, estimator: Estimator, by_method: dict[str, list[list[JsonObject]]], recipe: Recipe | Size
) -> dict[str, MethodCost]:
    """Seconds of all methods' passes on one model."""
    search = sweep.recipe.search
    if search and search.is_contest and sum(map(len, by_method.values())) > 1:
        return contest_costs(estimator, by_method, recipe, search)
    return {name: _cost(sweep, estimator, name, passes, recipe) for name, passes in by_method.items()}


def _cost(sweep: Sweep, estimator: Estimator, method: str, passes: list[list[JsonObject]], recipe: Recipe | Size) -> MethodCost:
    """Seconds of a method's passes on one model: of all, or of their search at most."""
    search = sweep.recipe.search
    if search and search.keep < 1 and len(passes) > 1:
        return search_cost(estimator, method, passes, recipe, search)
    cost = MethodCost()
    for options in passes:
        estimator.group(cost, method, options, recipe, shared=True)
    return cost


def paper_cost() -> str:
    """Runs and hours of the paper, to compare with."""
    measured = paper.NODE_HOURS * paper.NODE_GPUS / paper.TRIPLED
    nodes = f"{paper.NODE_HOURS:,} node-hours of {paper.NODE_GPUS} A100s"
    return f"The paper: {paper.EXPERIMENTS:,} runs, {nodes}, tripled: {measured:,.0f} A100-hours measured."


def merged(all_costs: Iterable[dict[str, MethodCost]]) -> dict[str, MethodCost]:
    """The costs of several sweeps together."""
    found: dict[str, MethodCost] = {}
    for costs_of_one in all_costs:
        for name, cost in costs_of_one.items():
            _add(found.setdefault(name, MethodCost()), cost, 1)
    return found


def _passes(sweep: Sweep, choices: Sequence[Choice]) -> list[tuple[str, list[JsonObject]]]:
    """Method and options of the runs of each scoring pass."""
    groups: dict[object, list[Choice]] = {}
    for choice in choices:
        groups.setdefault((choice.call.name, choice.shared if sweep.recipe.share_scores else id(choice)), []).append(choice)
    return [(group[0].call.name, [choice.values for choice in group]) for group in groups.values()]


def _add(cost: MethodCost, other: MethodCost, times: int) -> None:
    cost.runs, cost.groups = cost.runs + times * other.runs, cost.groups + times * other.groups
    cost.alone, cost.shared, cost.measure = (
        cost.alone + times * other.alone, cost.shared + times * other.shared, cost.measure + times * other.measure,
    )  # fmt: skip
    for source, runs in other.sources.items():
        cost.sources[source] += times * runs
