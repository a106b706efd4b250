"""What a class-balanced sampler buys BalancedSubnet: what is left memorized, and accuracy, by number of steps.

    tinymem train recipes/quickstart.yaml --set seed=1     # and so on; then
    python benchmarks/balanced_sampler.py runs/quickstart-* --loss-weight 0.9

`shuffled` draws batches from the shuffled union, as Algorithm 6 and the published code do: in its runs most of them hold no memorized row.
`balanced` fills half of each batch with forget rows; its epoch has about twice the steps, so `epochs` counts those of `shuffled` and both
take about equal steps.
Each cell is the mean over the runs' seeds with the lowest and the highest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymem.mitigation.methods.weight._batches import batches, steps_per_epoch
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, by_epoch
from tinymem.mitigation.run import Subject
from tinymem.results.row import Identity
from tinymem.runs.pipeline import open_run, subject_of_run
from tinymem.runtime.device import resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)


def without_forget(subject: Subject, sampler: str) -> float:
    """Share of an epoch's batches that hold no forget row."""
    forget, retain = len(subject.data.forget), len(subject.data.retain)
    drawn = list(batches(forget, retain, sampler, 64, subject.data.generator()))
    return sum(bool((index >= forget).all()) for index in drawn) / len(drawn)


def measure(subject: Subject, sampler: str, epochs: list[int], options: dict[str, float]) -> dict[int, dict[str, float]]:
    """Per cent left of each artifact, and accuracy, after each number of epochs (of the shuffled sampler)."""
    own = {epoch // 2 if sampler == "balanced" else epoch: epoch for epoch in epochs}
    config = BalancedSubnetConfig(epochs=max(own), sampler=sampler, **options)
    found = {}
    for epoch, edited in by_epoch(subject.model, subject.data, config):
        if epoch in own:
            after = subject.evaluator.measure(edited())
            left = {kind: 100 * (after.memorized_share(kind).share or 0.0) for kind in subject.splits}
            found[own[epoch]] = {**left, "accuracy": 100 * (after.accuracy.share or 0.0)}
            print(f"  seed {subject.data.seed}, {sampler}, {own[epoch]} epochs: {found[own[epoch]]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--loss-weight", type=float, default=0.9)
    parser.add_argument("--epochs", default="2,4,8", help="even numbers of epochs of the shuffled sampler")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device, epochs = resolve_device(given.device), [int(n) for n in given.epochs.split(",")]
    options = {"ratio": given.ratio, "loss_weight": given.loss_weight}
    results: dict[str, list[dict[int, dict[str, float]]]] = {"shuffled": [], "balanced": []}
    for path in given.runs:
        subject = subject_of_run(open_run(path), device, Identity())
        sizes = len(subject.data.forget), len(subject.data.retain)
        per_epoch = steps_per_epoch(*sizes, "shuffled", 64)
        empty = {sampler: f"{without_forget(subject, sampler):.0%}" for sampler in results}
        print(f"{path.name}: {sizes[0]} rows to forget, {sizes[1]} to keep; {per_epoch} steps an epoch; no forget row in {empty}")
        for sampler in results:
            results[sampler].append(measure(subject, sampler, epochs, options))
    columns = list(results["shuffled"][0][epochs[0]])
    print(f"\n| sampler | epochs | {' | '.join(columns)} |\n|{' --- |' * (2 + len(columns))}")
    for epoch in epochs:
        for sampler, runs in results.items():
            values = torch.tensor([[seen[epoch][column] for column in columns] for seen in runs])
            cells = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in values.T]
            print(f"| {sampler} | {epoch} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
