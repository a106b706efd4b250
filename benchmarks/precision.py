"""Whether bf16 changes what a model memorizes: finished runs of one recipe in fp32 and in bf16, seed by seed.

    for p in fp32 bf16; do tinymem train recipes/paper/regularizers.yaml --set regularizer=none --set training.precision=$p --jobs 3; done
    python benchmarks/precision.py runs [--name regularizers-none]

The published 2-layer additive noise model had memorized 43 to 57 % at epoch 250. The two agree where the means differ by no more than the
spread between seeds: the larger of the two ranges. The second table is what had been memorized at each measured epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from finished_runs import Finished, finished, spread


def compare(runs: list[Finished]) -> tuple[str, bool]:
    """The table of one model, and whether the precisions agree."""
    groups = {precision: [run for run in runs if run.facts["precision"] == precision] for precision in ("fp32", "bf16")}
    if not all(groups.values()):
        raise SystemExit(f"expected finished runs in fp32 and in bf16, found {len(groups['fp32'])} and {len(groups['bf16'])}")
    lines = [f"{'precision':<11}{'memorized %, by seed':<34}{'mean ± sd':>14}{'accuracy %':>16}{'ms/step':>9}"]
    for precision, group in groups.items():
        each = "  ".join(f"{run.seed}: {run.memorized():.1f}" for run in group)
        speed = statistics.median(run.milliseconds for run in group)
        accuracy = spread([run.accuracy for run in group], 2)
        lines.append(f"{precision:<11}{each:<34}{spread([run.memorized() for run in group]):>14}{accuracy:>16}{speed:>9.2f}")
    shares = {precision: [run.memorized() for run in group] for precision, group in groups.items()}
    difference = abs(statistics.mean(shares["fp32"]) - statistics.mean(shares["bf16"]))
    between_seeds = max(max(s) - min(s) for s in shares.values())
    agree = difference <= between_seeds
    lines.append(f"means differ by {difference:.1f} points, seeds by up to {between_seeds:.1f}: {'the same' if agree else 'NOT the same'}")
    return "\n".join([*lines, "", *by_epoch(groups)]), agree


def by_epoch(groups: dict[str, list[Finished]]) -> list[str]:
    """What is memorized on the way, by seed."""
    curves = {precision: [run.memorized_by_epoch() for run in group] for precision, group in groups.items()}
    seeds = [f"{precision}: seeds {', '.join(str(run.seed) for run in group)}" for precision, group in groups.items()]
    epochs = sorted(set.intersection(*(set(curve) for group in curves.values() for curve in group)))
    cells = [[", ".join(f"{curve[epoch]:.1f}" for curve in group) for group in curves.values()] for epoch in epochs]
    return [
        f"| epoch | {' | '.join(seeds)} |",
        "| --- | --- | --- |",
        *(f"| {e} | {' | '.join(c)} |" for e, c in zip(epochs, cells, strict=True)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--name", default="regularizers-none", help="of the runs, without their seeds")
    given = parser.parse_args()
    text, agree = compare([run for run in finished(given.runs) if run.label == given.name])
    print(text)
    sys.exit(int(not agree))


if __name__ == "__main__":
    main()
