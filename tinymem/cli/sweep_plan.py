"""What `tinymem sweep` prints: the runs of sweeps by method, the time that they take, and what they came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.cli.printing import listing, objects_of, print_json, print_listing, print_tables_as
from tinymem.errors import UserError
from tinymem.runtime.words import counted, duration, size

if TYPE_CHECKING:
    from tinymem.report.tables.table import Cell, Number, Table
    from tinymem.results.row import MeasuredRow
    from tinymem.runtime.json import JsonObject
    from tinymem.sweep.estimate import MethodCost
    from tinymem.sweep.listing import Counts, Left
    from tinymem.sweep.run import Sweep

STATUS = ("sweep", "method", "runs", "left", "ok", "refused", "failed", "timeout")
FATES = ("model", "method", "passes", "first rung", "on", "kept", "second rung", "all rows", "dropped after")
LIST = ("sweep", "method", "runs", "passes", "left out")
ABSENT = "a GPU, of which there is none here"
COSTS = ("method", "runs", "passes", "time", "disk", "measuring", "share", "one by one")


def print_plan(planned: Iterable[Sweep], output: str, *, status: bool) -> None:
    """Print the runs of each sweep by method: their number, with the arithmetic behind it, or what they came to."""
    from tinymem.sweep.listing import count, paper_counts

    sweeps = list(planned)
    counts = [count(one) for one in sweeps]
    notes = [sentence for one, found in zip(sweeps, counts, strict=True) for sentence in _of_sweep(one, found)]
    if len(counts) > 1:
        runs, passes = sum(c.runs.total() for c in counts), sum(c.groups.total() for c in counts)
        models = counted(sum(c.models for c in counts), "model")
        notes.append(f"together: {counted(runs, 'run')} in {counted(passes, 'scoring pass', 'scoring passes')} on {models}")
    if any(one.recipe.explain == "paper" for one in sweeps):
        notes.append(paper_counts())
    if status:
        came_to = [(one.recipe.name, *line) for one in sweeps for line in _statuses(one)]
        print_listing(listing("Runs of trained models by method", STATUS, came_to, notes=notes), output)
        for one in sweeps if output == "table" else ():
            print_fates(one)
        return
    rows = [(one.recipe.name, *line) for one, found in zip(sweeps, counts, strict=True) for line in _methods(found)]
    print_listing(listing("Runs by method", LIST, rows, notes=notes), output)


def print_fates(sweep: Sweep) -> None:
    """Print what became of each method in a sweep's contest, if it has had one; its file has the same."""
    if table := fates_of(sweep):
        print_listing(table, "table")


def fates_of(sweep: Sweep) -> Table | None:
    """A line for each method of a sweep's contest, what became of it; None if there has been none."""
    from tinymem.report.cells import number
    from tinymem.report.tables.table import Cell
    from tinymem.sweep.contest import stored_fates

    def shown(score: float | None) -> Cell:
        return Cell(number(score, 2), value=score)

    if not (fates := stored_fates(sweep.folder)):
        return None
    notes = ["M - P of the best pass on each rung and on all rows; dropped methods might do better with their whole grids"]
    lines = [(f.model, f.method, f.passes, shown(f.first), f.form, f.kept, shown(f.second), shown(f.full), f.dropped) for f in fates]
    return listing(f"{sweep.recipe.name}: methods in the contest", FATES, lines, notes=notes)


def print_outcomes(done: Sequence[tuple[Sweep, Counter[str]]], output: str) -> None:
    """Print what sweeps came to that have run, in a format for programs: runs by status, why some have no result, and contests."""
    contests = [fates_of(one) if one.recipe.search else None for one, _ in done]
    if output == "json":
        print_json([_outcome(one, found, contest) for (one, found), contest in zip(done, contests, strict=True)])
        return
    names = sorted({name for _, found in done for name in found})
    lines: list[list[Number]] = [[one.recipe.name, found.total(), *(found[name] for name in names)] for one, found in done]
    counts = listing("Runs by status", ("sweep", "runs", *names), lines)
    if any(contests):
        print_tables_as([counts, *filter(None, contests)], output, None)
    else:
        print_listing(counts, output)


def _outcome(sweep: Sweep, statuses: Counter[str], contest: Table | None) -> JsonObject:
    found: JsonObject = {"sweep": sweep.recipe.name, "folder": str(sweep.folder), "runs": statuses.total()}
    found["statuses"] = {**dict(sorted(statuses.items()))}
    found["reasons"] = [
        {"status": reason.status, "runs": len(reason.runs), "methods": [*sorted(reason.methods)], "message": reason.message}
        for reason in sweep.reasons()
    ]
    return {**found, "contest": objects_of(contest)} if contest else found


def _statuses(sweep: Sweep) -> Iterator[tuple[str | int, ...]]:
    found: dict[str, Counter[str]] = {}
    for group in sweep.plan.groups:
        for run in group.runs:
            found.setdefault(group.method, Counter())[sweep.known[run.id].status if run.id in sweep.known else "left"] += 1
    for method, statuses in sorted(found.items()):
        yield method, statuses.total(), *(statuses[name] for name in STATUS[3:])


def _methods(counts: Counts) -> Iterator[tuple[str, int, int, int | None]]:
    for name in sorted({*counts.runs, *counts.dropped}):
        yield name, counts.runs[name], counts.groups[name], counts.dropped[name] or None
    yield "all", counts.runs.total(), counts.groups.total(), counts.dropped.total() or None


def _of_sweep(sweep: Sweep, counts: Counts) -> Iterator[str]:
    from tinymem.sweep.listing import explain

    runs, models = counted(counts.runs.total(), "run"), counted(counts.models, "model")
    yield f"{sweep.recipe.name}: {runs} on {models}, {counts.trained:,} of them {'here' if sweep.recipe.rows else 'trained'}"
    if counts.trained:
        statuses = sorted(sweep.statuses().items())
        yield f"{sweep.recipe.name}, of the trained models' runs: " + ", ".join(f"{n:,} {status}" for status, n in statuses)
        yield from (f"  {reason}" for reason in sweep.reasons())
    yield from _of_localization(sweep)
    if sweep.recipe.search:
        passes = "all passes on a model" if sweep.recipe.search.is_contest else "of a method with several passes on a model, all"
        yield f"searched by halving: {passes} run on rungs, and few in full; --dry-run says how long"
    if sweep.recipe.explain == "paper":
        yield explain(counts, sweep)


def print_estimate(planned: Iterable[Sweep], place: str, project: Path | None, output: str) -> None:
    """Print time and disk of the runs that are left, or the time of all with the rows of `project`, by method, the longest first."""
    from tinymem.runtime.device import describe_device, device_is_here
    from tinymem.sweep.estimate import Estimator, measured_rows
    from tinymem.sweep.listing import costs, left_over, merged, paper_cost

    found, devices, notes, sizes, paper = list[dict[str, "MethodCost"]](), set[str](), list[str](), Counter[str](), False
    for one in planned:
        rows = measured_rows(project) if project else _rows_of(one, place)
        if project and not rows:
            raise UserError(f"expected measured rows in {project}, found none; name a sweep or a run, or take --dry-run for an estimate")
        devices |= {row.device for row in rows if row.device}
        paper |= one.recipe.explain == "paper"
        notes += [*_of_named(one), *_of_robustness(one), *_of_localization(one)]
        if project is None:
            left = left_over(one)
            sizes.update(left.bytes)
            notes.append(_of_left(one, left))
        found.append(costs(one, Estimator(rows, place), left_only=project is None))
        notes += _of_spread(one, found[-1], place)
    all_costs, where = merged(found), " and ".join(sorted(devices)) or (describe_device(place) if device_is_here(place) else ABSENT)
    notes = [*_said(all_costs, where), *notes, *([] if project else ["Nothing was done."]), *([paper_cost()] if paper else [])]
    heads = [head for head in COSTS if head != "disk" or project is None]
    print_listing(listing("Time by method", heads, _times(all_costs, None if project else sizes), notes=notes), output)


def _rows_of(sweep: Sweep, place: str) -> list[MeasuredRow]:
    """Measured rows of a sweep: its own, and those of its models' runs."""
    from tinymem.sweep.estimate import measured_rows, rows_of_runs

    own = measured_rows(sweep.folder) if sweep.folder.is_dir() else []
    return [*own, *rows_of_runs([m.checkpoint for m in sweep.models if m.checkpoint], place.partition(":")[0])]


def _of_left(sweep: Sweep, left: Left) -> str:
    """What an estimate says of the runs that are left, and of their disk."""
    here = f"{sum(model.checkpoint is not None for model in sweep.models):,} of {counted(len(sweep.models), 'model')}"
    disk = f", about {size(left.bytes.total())} of disk in {sweep.folder}, and {size(left.passing)} more on the way" if left.runs else ""
    return (
        f"{sweep.recipe.name}: {here} {'here' if sweep.recipe.rows else 'trained'}, {counted(left.runs.total(), 'run')} to do on them{disk}"
    )


def _of_named(sweep: Sweep) -> list[str]:
    """What an estimate says of a sweep's models by name."""
    if not sweep.recipe.rows:
        return []
    absent = sum(model.basis is None for model in sweep.models)
    without = f"without {counted(absent, 'model')} of the Hub not fetched yet; others" if absent else "models"
    return [f"{sweep.recipe.name}: {without} by name are guessed from their size, not probed"]


def _of_spread(sweep: Sweep, found: dict[str, MethodCost], place: str) -> list[str]:
    """What an estimate says of a sweep's GPUs, where each run holds several."""
    if (gpus := sweep.recipe.gpus) == 1 or place == "cpu":
        return []
    held = duration(gpus * sum(cost.total for cost in found.values()))
    return [f"{sweep.recipe.name}: times are of whole runs, each of which holds {gpus} GPUs: {held} of GPU time"]


def _of_robustness(sweep: Sweep) -> list[str]:
    """What an estimate says of the tests of robustness, which it does not know before they are made."""
    asked = sweep.recipe.robustness or any(model.recipe and model.recipe.mitigation.robustness for model in sweep.models)
    return [f"{sweep.recipe.name}: the tests of robustness are not in these times"] if asked else []


def _of_localization(sweep: Sweep) -> list[str]:
    """What is said of a sweep's benchmark of localization, which is in none of its runs and times."""
    if sweep.recipe.localization is None:
        return []
    models = counted(sum(model.checkpoint is not None for model in sweep.models), "trained model")
    benchmark = f"the benchmark {sweep.recipe.localization.benchmark} of localization"
    return [f"{sweep.recipe.name}: then {benchmark} on {models}, in no run or time here; --only and --engine parsl leave it aside"]


def _times(found: dict[str, MethodCost], sizes: Counter[str] | None) -> Iterator[tuple[Cell | str | int, ...]]:
    from tinymem.report.tables.table import Cell

    total = sum(cost.total for cost in found.values())
    for name, cost in sorted(found.items(), key=lambda item: -item[1].total):
        share = cost.total / total if total else 0.0
        times = [Cell(duration(seconds), value=seconds) for seconds in (cost.total, cost.measure, cost.alone + cost.measure)]
        disk = [] if sizes is None else [Cell(size(sizes[name]), value=sizes[name])]
        yield name, cost.runs, cost.groups, times[0], *disk, times[1], Cell(f"{share:.1%}", value=share), times[2]


def _said(found: dict[str, MethodCost], where: str) -> Iterator[str]:
    total, sources = sum(cost.total for cost in found.values()), Counter[str]()
    for cost in found.values():
        sources.update(cost.sources)
    yield "passes: scoring passes, which the runs share; one by one: the time if they did not"
    yield f"{duration(total)} on {where}, one run at a time. Of the runs, {sources['exact']:,} were measured on a model of this size,"
    yield f"{sources['scaled']:,} are scaled from the nearest measured, {sources['guessed']:,} by a table of costs and a probe of speed."
