"""A sweep from its recipe to its folder: plan the runs that are left, run them, and report their statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from tinymem.errors import UserError
from tinymem.mitigation.requests import MeasurementRequest, covers
from tinymem.recipe.plugins import store_plugins
from tinymem.recipe.sweep import SweepRecipe
from tinymem.results.nested import RequestColumn
from tinymem.results.reasons import Reason, grouped_reasons
from tinymem.results.store import PLANNED, RECIPE, Index, Known, read_runs, write_failures
from tinymem.runtime.files import write_json, write_text
from tinymem.runtime.progress import Bar, Progress, progress_of
from tinymem.runtime.signals import StopFlag, stop_signals
from tinymem.runtime.words import counted
from tinymem.sweep.estimate import Estimator, MethodCost
from tinymem.sweep.models import Model, find_models
from tinymem.sweep.places import local_workers, with_memory
from tinymem.sweep.plan import Plan, make_plan
from tinymem.sweep.supervisor import Supervisor, stop_all
from tinymem.sweep.work import Event, PlannedRun, WorkUnit
from tinymem.sweep.worker_process import WorkerProcess, remove_stale_logs


@dataclass
class Sweep:
    """A planned sweep: its runs, and the results stored so far."""

    recipe: SweepRecipe
    folder: Path
    models: list[Model]
    plan: Plan
    known: dict[str, Known]
    plugins: tuple[Path, ...] = ()

    def left(self, *, retry_failed: bool = False) -> list[WorkUnit]:
        """Groups of the runs that have no rows, lack requested measurements, or (with `retry_failed`) have failed."""
        groups = []
        for group in self.plan.groups:
            runs = [planned for run in group.runs if (planned := self._planned(group, run, retry_failed)) is not None]
            if runs:
                groups.append(replace(group, runs=runs))
        return groups

    def statuses(self) -> Counter[str]:
        """Number of planned runs by status; `left` for those without rows."""
        return Counter(self.known[run.id].status if run.id in self.known else "left" for g in self.plan.groups for run in g.runs)

    def reasons(self) -> list[Reason]:
        """Why planned runs were refused or failed, that of the most runs first."""
        planned = {run.id for group in self.plan.groups for run in group.runs}
        wanted = {run for run in planned & self.known.keys() if self.known[run].status != "ok"}
        return grouped_reasons(row for _, rows in (read_runs(self.folder, wanted) if wanted else ()) for row in rows)

    def _planned(self, group: WorkUnit, run: PlannedRun, retry_failed: bool) -> PlannedRun | None:
        known = self.known.get(run.id)
        if known is None:
            return run
        again = retry_failed if known.failed else known.status == "ok" and not _answered(group.model.request, known.request)
        return replace(run, replaces=known.finished) if again else None


def _answered(wanted: RequestColumn, stored: RequestColumn | None) -> bool:
    """Whether rows whose request was `stored` hold everything that is wanted; rows without a request hold the default."""
    return covers(MeasurementRequest().as_column() if stored is None else stored, wanted)


@dataclass
class Tally:
    """Count of finished runs by status, shown on a progress bar."""

    bar: Bar
    costs: dict[str, float]
    total: int
    statuses: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: Event) -> None:
        """Count the event of a run whose rows are written."""
        self.statuses[event["status"]] += 1
        failed = self.statuses["failed"] + self.statuses["timeout"]
        self.bar.advance(
            self.costs.pop(event["id"], 0.0),
            f"{self.statuses.total()} of {counted(self.total, 'run')}" + (f", {failed} failed" if failed else ""),
        )


Engine = Callable[[Sweep, Sequence[WorkUnit], Tally, StopFlag], None]


def open_sweep(
    recipe: SweepRecipe,
    *,
    out: Path,
    runs: Path,
    device_type: str,
    only: Sequence[str] = (),
    shard: str | None = None,
    plugins: Sequence[Path] = (),
    fetch: bool = True,
) -> Sweep:
    """Plan a sweep; nothing is written. Without `fetch` models of the Hub that are not here are only counted.

    Raises:
        UserError: as `find_models` and `make_plan`.
    """
    models = find_models(recipe, runs, out, fetch=fetch)
    plan = make_plan(recipe, models, device_type, only=only, shard=shard)
    known = Index(out).all() if out.is_dir() else {}
    copies = [out / file.file for file in recipe.plugins]
    return Sweep(recipe, out, models, plan, known, tuple(path.resolve() for path in (*plugins, *copies)))


def run_sweep(sweep: Sweep, engine: Engine, *, retry_failed: bool = False, progress: Progress | bool = True) -> Counter[str]:
    """Run all runs that are left; returns the number of planned runs by status. `progress`: as of `tinymem.run`.

    Raises:
        UserError: no model of the sweep is trained yet.
        Stopped: a signal came; the same command continues.
    """
    progress = progress_of(progress)
    if not sweep.plan.groups:
        raise UserError(
            f"expected trained models, found none of the {len(sweep.models)} of the recipe; train them first, --list names them"
        )
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"could not make the folder {sweep.folder}: {error.strerror or error}; name another with --out") from None
    remove_stale_logs(sweep.folder)
    store_plugins(sweep.recipe.plugins, sweep.folder)
    write_text(sweep.folder / RECIPE, yaml.safe_dump(sweep.recipe.model_dump(mode="json"), sort_keys=False))
    write_json(sweep.folder / PLANNED, {"runs": sweep.plan.counted})
    groups = sweep.left(retry_failed=retry_failed)
    total = sum(len(group.runs) for group in groups)
    progress.say(
        f"{counted(sweep.plan.runs, 'run')}, {sweep.plan.runs - total} done before, {total} to do in {counted(len(groups), 'group')}"
    )
    groups, costs = by_cost(groups, sweep)
    with stop_signals() as stop:
        if groups:
            with progress.stage("sweep", sum(costs.values())) as bar:
                engine(sweep, groups, Tally(bar, costs, total), stop)
        Supervisor(sweep.folder, [], sweep.recipe.limits).compact(patience=60.0)
        write_failures(sweep.folder)
    if stop.name:
        raise stop.stopped("")
    sweep.known = Index(sweep.folder).all()
    return sweep.statuses()


def by_cost(groups: list[WorkUnit], sweep: Sweep) -> tuple[list[WorkUnit], dict[str, float]]:
    """The groups, longest first within a model, and the estimated seconds of each run."""
    bases = {str(model.checkpoint): model.basis for model in sweep.models if model.basis}
    estimator, parts, lengths = Estimator(probe=False), dict[str, float](), dict[int, float]()
    for group in groups:
        basis = bases[group.model.checkpoint]
        seconds = estimator.group(MethodCost(), group.method, [run.config for run in group.runs], basis, shared=True)
        lengths[id(group)] = seconds
        parts.update({run.id: seconds / len(group.runs) for run in group.runs})
    order = {key: i for i, key in enumerate(dict.fromkeys(group.model_key for group in groups))}
    return sorted(groups, key=lambda group: (order[group.model_key], -lengths[id(group)])), parts


def local_engine(device: str, jobs: int | None = None) -> Engine:
    """An engine of worker processes on this machine; `jobs` as `local_workers` takes it."""
    return LocalEngine(device, jobs)


@dataclass
class LocalEngine:
    """Worker processes on this machine, which end with each sweep, or with the block of `kept_workers`."""

    device: str
    jobs: int | None
    kept: list[WorkerProcess] | None = None
    """Workers that a sweep leaves to the next one, with the model and kernels that they have loaded; None: it leaves none."""

    def __call__(self, sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
        """Run groups of a sweep."""
        workers = self.kept or local_workers(sweep.folder, self.device, self.jobs, sweep.plugins, gpus=sweep.recipe.gpus)
        if self.kept is not None:
            self.kept = workers
        keys = {group.model_key for group in groups}
        workers = sorted(workers, key=lambda worker: worker.model_key not in keys)  # first those that have a model of these groups loaded
        started = workers[: len(groups)]
        stop_all(workers[len(groups) :])  # of a rung before: they hold memory that nobody counts
        limits = with_memory(sweep.recipe.limits, len(started))
        supervisor = Supervisor(sweep.folder, started, limits, compact_every=sweep.recipe.compact_every, tell=tally, stop=stop)
        try:
            supervisor.run(groups)
        finally:
            if self.kept is None or stop.name:
                supervisor.close()


@contextmanager
def kept_workers(engine: Engine) -> Iterator[None]:
    """Let an engine's workers on this machine live on between the sweeps of the block, which have equal plugins, and end them with it."""
    if not isinstance(engine, LocalEngine):
        yield
        return
    engine.kept = []
    try:
        yield
    finally:
        stop_all(engine.kept)
        engine.kept = None
