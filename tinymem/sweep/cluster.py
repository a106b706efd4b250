"""A sweep on a cluster through Parsl: Slurm, PBS, Kubernetes and every other system that Parsl has a provider for.

The worker function is that of one machine. A Parsl task is a few groups of one model; on its node, the Parsl worker runs them through a
supervisor with one worker process, which lives on between tasks. So model and data stay loaded, limits hold, and a run that hangs is
stopped alone. The file given with --config is Python with a `parsl.Config` named `config`; recipes/cluster/ has examples. It pins GPUs to
workers (`available_accelerators`) and sets how often lost tasks are tried again (`retries`) and how soon a lost node is noticed
(`heartbeat_period`, `heartbeat_threshold`).

The sweep's folder, the runs and the plugins must be on a file system that all nodes share. Results are written by the workers; only ids
and statuses are returned.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from tinymem.errors import CouldNotWrite, UserError
from tinymem.runtime.signals import StopFlag
from tinymem.sweep.node import do_groups
from tinymem.sweep.run import Engine, Sweep, Tally
from tinymem.sweep.supervisor import Supervisor
from tinymem.sweep.work import Event, ModelKey, WorkUnit

TASK_GROUPS = 16
"""Groups of one model that go to a worker together, so that it seldom loads another."""
POLL_SECONDS = 1.0


def parsl_engine(config_file: Path, device: str) -> Engine:
    """An engine that hands tasks to the executors of a Parsl configuration.

    Raises:
        UserError: Parsl is not installed, or the file has no `config`.
    """
    config = load_config(config_file)

    def engine(sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
        import parsl

        path = os.environ.get("PATH", "")
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"  # Parsl starts its own programs by name
        compactor = Supervisor(sweep.folder, [], sweep.recipe.limits)
        with parsl.load(config):
            app = parsl.python_app(do_groups)
            limits = sweep.recipe.limits.model_dump_json()
            common = (str(sweep.folder.resolve()), "cpu" if device == "cpu" else "cuda", limits, [str(p) for p in sweep.plugins])
            waiting = {app(*common, [group.to_json() for group in task]): task for task in tasks_of(groups)}
            while waiting and not stop.name:
                done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    _collect(sweep, waiting.pop(future), future, tally)
                if tally.statuses.total() - compactor.finished >= sweep.recipe.compact_every:
                    compactor.compact()
                    compactor.finished = tally.statuses.total()

    return engine


def tasks_of(groups: Sequence[WorkUnit]) -> Iterator[list[WorkUnit]]:
    """Groups of one model, a few at a time."""
    by_model: dict[ModelKey, list[WorkUnit]] = {}
    for group in groups:
        by_model.setdefault(group.model_key, []).append(group)
    for together in by_model.values():
        for start in range(0, len(together), TASK_GROUPS):
            yield together[start : start + TASK_GROUPS]


def load_config(path: Path) -> Any:
    """The `config` of a Python file.

    Raises:
        UserError: Parsl is not installed, the file is missing or fails, or has no `config`.
    """
    try:
        import parsl
    except ImportError:
        raise UserError("--engine parsl needs Parsl, which is not installed; try: pip install 'tinymem[cluster]'") from None
    if not path.is_file():
        raise UserError(f"expected a Python file with a Parsl `config` at {path}, found none; recipes/cluster/ has examples")
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise UserError(f"{path} failed while it was read: {type(error).__name__}: {error}") from error
    if not isinstance(config, parsl.Config):
        raise UserError(f"expected a parsl.Config named `config` in {path}, got {type(config).__name__}; recipes/cluster/ has examples")
    return config


def _collect(sweep: Sweep, task: list[WorkUnit], future: Future[list[Event]], tally: Tally) -> None:
    """Count a task's runs. A task that Parsl has given up leaves failed rows for the runs that it has not done.

    Raises:
        CouldNotWrite: the task could not write its results, as on a full disk; its runs are left to do.
    """
    error = future.exception()
    if error is None:
        for event in future.result():
            tally(event)
        return
    if isinstance(error, CouldNotWrite):
        raise error
    supervisor = Supervisor(sweep.folder, [], sweep.recipe.limits, tell=tally)
    for group in task:
        supervisor.give_up(group, f"the cluster gave the task up: {type(error).__name__}: {error}")
