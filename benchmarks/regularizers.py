"""What each regularizer does to memorization, accuracy and speed: the table of the finished runs of recipes/paper/regularizers.yaml.

    tinymem train recipes/paper/regularizers.yaml --jobs 4
    python benchmarks/regularizers.py runs [--times bench.jsonl] [--json]

Means and standard deviations between seeds. `ms/step` is from the runs themselves: runs that shared a device are slower than one alone,
all alike. With `--times`, the output of `tinymem bench train --json` for the ways `ours` and `ours+X` on an idle device, the overhead is
from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

from finished_runs import Finished, finished, spread

from tinymem.bench.hours import read_times

BASELINE = "none"


def rows_of(runs: list[Finished], overhead: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """A row for each configuration and precision, the baseline first."""
    key = lambda run: (run.label, run.facts["precision"])  # noqa: E731
    groups = [(label, precision, list(group)) for (label, precision), group in groupby(sorted(runs, key=key), key)]
    plain = {precision: _milliseconds(group) for label, precision, group in groups if label.endswith(BASELINE)}
    rows = [_row(label, precision, group, plain.get(precision), overhead) for label, precision, group in groups]
    return sorted(rows, key=lambda row: (not row["config"].endswith(BASELINE), row["config"]))


def _row(label: str, precision: str, runs: list[Finished], plain: float | None, overhead: dict[str, float] | None) -> dict[str, Any]:
    factor = _milliseconds(runs) / plain if plain else None
    if overhead is not None:
        kinds = [r["kind"] for r in runs[0].recipe["training"]["regularizers"]]
        factor = overhead.get(kinds[0]) if len(kinds) == 1 else 1.0 if not kinds else None
    return {
        "config": label,
        "precision": precision,
        "epoch": runs[0].facts["epoch"],
        "seeds": [run.seed for run in runs],
        "memorized": [run.memorized() for run in runs],
        "accuracy": [run.accuracy for run in runs],
        "milliseconds": _milliseconds(runs),
        "overhead": None if factor is None else factor - 1,
    }


def _milliseconds(runs: list[Finished]) -> float:
    return statistics.median(run.milliseconds for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--times", type=Path, help="output of `tinymem bench train --json`")
    parser.add_argument("--way", default="ours")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = rows_of(finished(given.runs), read_times(given.times, given.way).overhead if given.times else None)
    if given.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(f"{'config':<36}{'precision':<11}{'epoch':>6}{'seeds':>10}{'memorized %':>16}{'accuracy %':>16}{'ms/step':>9}{'overhead':>10}")
    for row in rows:
        overhead = "-" if row["overhead"] is None else f"{100 * row['overhead']:+.0f} %"
        seeds = ",".join(map(str, row["seeds"]))
        numbers = f"{spread(row['memorized']):>16}{spread(row['accuracy'], 2):>16}{row['milliseconds']:>9.2f}{overhead:>10}"
        print(f"{row['config']:<36}{row['precision']:<11}{row['epoch']:>6}{seeds:>10}{numbers}")


if __name__ == "__main__":
    main()
