"""What the precision of the passes that train a mask changes: weights chosen, what is left memorized, accuracy.

    for s in 0 1 3; do tinymem train recipes/quickstart.yaml --set seed=$s; done
    python benchmarks/mask_precision.py runs/quickstart-* [--device cpu]

BalancedSubnet with fp32 passes, with bf16 passes, and with fp32 passes and another seed of the mask, which tells how much of a difference
is chance. `changed` is the share of the dropped weights that the first run keeps.
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

VARIANTS: dict[str, tuple[Precision, int]] = {"fp32": ("fp32", 0), "bf16": ("bf16", 0), "fp32, another seed of the mask": ("fp32", 100)}


def edit(subject: Subject, precision: Precision, shift: int, config: BalancedSubnetConfig) -> nn.Module:
    """The edit after the last epoch, of a mask whose seed is `shift` further than the subject's."""
    data = replace(subject.data, seed=subject.data.seed + shift)
    *_, (_, edited) = by_epoch(subject.model, data, replace(config, precision=precision))
    return edited()


def dropped(model: nn.Module) -> Tensor:
    """Which weights of the feed-forward matrices are 0."""
    return torch.cat([(weight == 0).flatten() for weight in mlp_parameters(model, matrices_only=True).values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    config = BalancedSubnetConfig(ratio=given.ratio, epochs=given.epochs)
    for path in given.runs:
        subject, first = subject_of_run(open_run(path), resolve_device(given.device), Identity()), None
        for label, (precision, shift) in VARIANTS.items():
            model = edit(subject, precision, shift, config)
            chosen, after = dropped(model), subject.evaluator.measure(model)
            first = chosen if first is None else first
            left = {kind: after.memorized_share(kind) for kind in subject.splits}
            counts = ", ".join(f"{kind} {100 * (share.share or 0):.1f} % ({share.count}/{share.rows})" for kind, share in left.items())
            changed = float((chosen & ~first).sum() / chosen.sum())
            print(f"{path.name}, {label}: {counts}, accuracy {100 * (after.accuracy.share or 0):.1f} %, changed {changed:.1%}", flush=True)


if __name__ == "__main__":
    main()
