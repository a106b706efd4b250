"""What the precision of the passes that train a mask changes: weights chosen, what is left memorized, accuracy.

    for s in 0 1 3; do tinymem train recipes/quickstart.yaml --set seed=$s; done
    python benchmarks/mask_precision.py runs/quickstart-* [--device cpu]

BalancedSubnet with fp32 and with bf16 passes, each with several seeds of the mask: where the two differ by no more than seeds do,
precision costs nothing. A cell is the mean over seeds with the lowest and the highest; `changed` is the share of the dropped weights that
the fp32 run of the same seed keeps, and for fp32 that its first seed keeps, which is what chance changes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tinymem.mitigation.methods.weight._learned_mask import Precision
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, by_epoch
from tinymem.mitigation.run import Subject
from tinymem.models.adapters import mlp_parameters
from tinymem.results.row import Identity
from tinymem.runs.pipeline import open_run, subject_of_run
from tinymem.runtime.device import resolve_device

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
FAR = 100
"""Between one seed of a mask and the next, so that none is another run's."""


def edit(subject: Subject, precision: Precision, seed: int, config: BalancedSubnetConfig) -> nn.Module:
    """Return the edit after the last epoch, of a mask whose seed is so many steps from the subject's own."""
    data = replace(subject.data, seed=subject.data.seed + FAR * seed)
    *_, (_, edited) = by_epoch(subject.model, data, replace(config, precision=precision))
    return edited()


def dropped(model: nn.Module) -> Tensor:
    """Return which weights of the feed-forward matrices are 0."""
    return torch.cat([(weight == 0).flatten() for weight in mlp_parameters(model, matrices_only=True).values()])


def measure(subject: Subject, seeds: int, config: BalancedSubnetConfig) -> dict[str, Tensor]:
    """Per cent left of each artifact, accuracy, and dropped weights that changed: by precision, a row a seed."""
    rows: dict[str, list[list[float]]] = {precision: [] for precision in PRECISIONS}
    first: Tensor | None = None
    for seed in range(seeds):
        kept: Tensor | None = None
        for precision in PRECISIONS:
            model = edit(subject, precision, seed, config)
            chosen, after = dropped(model), subject.evaluator.measure(model)
            first = chosen if first is None else first
            kept, other = (chosen, first) if kept is None else (kept, kept)
            left = [after.memorized_share(kind).share or 0.0 for kind in subject.splits]
            changed = float((chosen & ~other).sum() / chosen.sum())
            rows[precision].append([100 * value for value in (*left, after.accuracy.share or 0.0, changed)])
    return {precision: torch.tensor(found) for precision, found in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    config = BalancedSubnetConfig(ratio=given.ratio, epochs=given.epochs)
    for path in given.runs:
        subject = subject_of_run(open_run(path), resolve_device(given.device), Identity())
        print(f"{path.name}\n| passes | {' | '.join(subject.splits)} | accuracy | changed |", flush=True)
        for precision, found in measure(subject, given.seeds, config).items():
            cells = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in found[:, :-1].T]
            other = found[1:, -1] if precision == "fp32" else found[:, -1]  # a first seed does not differ from itself
            print(f"| {precision} | {' | '.join(cells)} | {other.mean():.1f} |", flush=True)


if __name__ == "__main__":
    main()
