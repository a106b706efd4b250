"""A sweep of many tiny runs: overhead a run, memory over time, and what is left after processes were killed.

    python benchmarks/sweep_scale.py runs/quickstart-*/checkpoint --runs 10000 --workers 2 --kills 20

The runs are edits of that model by a method that costs next to nothing (one random weight mask each); what remains is loading, measuring,
writing, claiming and talking. The work itself is what the rows say (edit and measurement) and what loading took; all else is overhead.
Kills are SIGKILL, every so many finished runs: of a worker, every third time of the supervisor, which is then started again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tinymem.results.store import Index, read_rows

PLUGIN = """
from copy import deepcopy
from dataclasses import dataclass
import torch
from tinymem import MethodConfig, Properties, editor

@dataclass(frozen=True)
class Config(MethodConfig):
    number: int = 0

@editor("nudge", config=Config, properties=Properties(unit="model", order="zeroth"))
def nudge(model, data, config):
    edited = deepcopy(model)
    with torch.no_grad():
        next(edited.parameters())[config.number % 14].mul_(1 + 1e-6 * config.number)
    return edited
"""


@dataclass
class Watched:
    """What was seen while the sweep ran."""

    memory: list[tuple[int, float, float]] = field(default_factory=list)
    """Finished runs, MB of the supervisor, MB of all workers."""
    killed_workers: int = 0
    killed_supervisors: int = 0
    seconds: float = 0.0


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = given.out or Path(place) / "sweep"
        folder.parent.mkdir(parents=True, exist_ok=True)
        plugin, recipe = folder.parent / "nudge.py", folder.parent / "sweep.yaml"
        plugin.write_text(PLUGIN)
        recipe.write_text(f"checkpoints: {given.checkpoint}\nmethods: [{{nudge: {{number: {list(range(given.runs))}}}}}]\n")
        words = ["sweep", recipe, "--out", folder, "--plugin", plugin, "--jobs", given.workers, "--device", given.device]
        watched = watch([sys.executable, "-m", "tinymem", *map(str, words)], folder, given)
        report(folder, given, watched)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of a small model, such as the quickstart's")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="keep the sweep's folder here")
    return parser.parse_args()


def watch(command: list[str], folder: Path, given: argparse.Namespace) -> Watched:
    """Run the sweep to its end, looking at its memory and killing its processes."""
    watched, started, index = Watched(), time.perf_counter(), Index(folder)
    process = subprocess.Popen(command)
    next_look, kills = 0, [given.runs * (i + 1) // (given.kills + 1) for i in range(given.kills)]
    while process.poll() is None:
        time.sleep(0.5)
        finished = count(index)
        workers = children(process.pid)
        if finished >= next_look:
            watched.memory.append((finished, resident(process.pid), sum(map(resident, workers))))
            next_look = finished + max(1, given.runs // 20)
        if kills and finished >= kills[0] and workers:
            kills.pop(0)
            if (watched.killed_workers + watched.killed_supervisors) % 3 == 2:
                process.kill()
                process.wait()
                watched.killed_supervisors += 1
                process = subprocess.Popen(command)
            else:
                os.kill(workers[0], signal.SIGKILL)
                watched.killed_workers += 1
    watched.seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"the sweep ended with exit code {process.returncode}")
    return watched


def report(folder: Path, given: argparse.Namespace, watched: Watched) -> None:
    rows = read_rows(folder)
    by_run = {row["id"]: row for row in rows}
    doubled = sum(n > 1 for n in Counter((row["id"], row["artifact"]) for row in rows).values())
    work = sum(row["seconds"] + row["seconds_measure"] for row in by_run.values())
    finished = sorted(row["finished"] for row in by_run.values())
    span = seconds_between(finished[0], finished[-1])
    print("\nfinished runs, MB of the supervisor, MB of the workers")
    for line in watched.memory:
        print("{:>8,} {:>8.0f} {:>8.0f}".format(*line))
    print(f"\nruns {len(by_run):,} of {given.runs:,}, {given.workers} workers")
    print(f"{watched.seconds:.1f} s in all, {span:.1f} s from the first run's end to the last's")
    print(f"work in the runs: {work:.1f} s, {1000 * work / len(by_run):.1f} ms each (edit and measurement)")
    print(f"overhead per run beyond the work: {1000 * (span * given.workers - work) / len(by_run):.1f} ms of a worker (first to last run)")
    print(f"with start and loading: {1000 * (watched.seconds * given.workers - work) / len(by_run):.1f} ms")
    print(f"killed: {watched.killed_workers} workers, {watched.killed_supervisors} supervisors")
    print(f"lost {given.runs - len(by_run)}, doubled {doubled}, parquet files {len(list((folder / 'parquet').iterdir()))}")


def count(index: Index) -> int:
    """Finished runs, without reading their files."""
    return len(index.compacted()) + sum(len(list((index.folder / place).glob("*.json"))) for place in ("results", "compacting"))


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def seconds_between(first: str, last: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


if __name__ == "__main__":
    main()
