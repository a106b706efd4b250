"""What the precision of the passes that train a mask changes: weights chosen, what is left memorized, accuracy.

    for s in 0 1 3; do tinymem train recipes/quickstart.yaml --set seed=$s; done
    python benchmarks/mask_precision.py runs/quickstart-* [--device cpu] [--ways "fp32" "bf16" ...]

BalancedSubnet with fp32 and with bf16 passes, each with several seeds of the mask: where the two differ by no more than seeds do,
precision costs nothing. Other ways tell what it is where they do differ: bf16 with the library's attention instead of training's, steps
launched one by one instead of as a CUDA graph, autograd where a GPU would take the kernels of whole blocks, and fp32 once more, which on a
GPU is another order of sums. A checkpoint of the zoo is as good as a run.

A cell is the mean over seeds with the lowest and the highest; `changed` is the share of the dropped weights that the first way's run of the
same seed keeps, and for the first way that its first seed keeps, which is what chance changes. p, two-sided, is of what is left of the
first artifact against the first way's of the same seeds: how often signs drawn at random make a mean difference as large.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from tinymem.mitigation.methods import replay
from tinymem.mitigation.methods.weight import _learned_mask, _mask_kernels
from tinymem.mitigation.methods.weight._learned_mask import Precision
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, by_epoch
from tinymem.mitigation.run import Subject
from tinymem.models.adapters import mlp_parameters
from tinymem.results.row import Identity
from tinymem.runs.pipeline import open_run, subject_of_run
from tinymem.runtime.device import resolve_device
from tinymem.zoo.loading import load

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor, nn  # isort: skip

WAYS: dict[str, Precision] = {
    "fp32": "fp32",
    "fp32, again": "fp32",
    "fp32, one by one": "fp32",
    "bf16": "bf16",
    "bf16, autograd": "bf16",
    "bf16, library's attention": "bf16",
    "bf16, one by one": "bf16",
}
DEFAULT_WAYS = ("fp32", "bf16")
DRAWS = 100_000
FAR = 100
"""Between one seed of a mask and the next, so that none is another run's."""


def subject_of(path: Path, device: str) -> Subject:
    """Return the subject of a run, or of a checkpoint of the zoo."""
    if (path / "config.json").exists():
        return load(path.name, device=device, zoo=path.parent).subject()
    return subject_of_run(open_run(path), device, Identity())


@contextmanager
def as_in(way: str) -> Iterator[None]:
    """Inside the context masks are trained in one of the ways."""
    with ExitStack() as stack:
        if "library" in way:
            stack.enter_context(mock.patch.object(_learned_mask, "row_attention_in", nullcontext))
        if "one by one" in way:
            stack.enter_context(mock.patch.object(replay, "LEAST_STEPS", 10**9))
        if way != "bf16":
            stack.enter_context(mock.patch.object(_mask_kernels, "why_not", lambda _: "--ways"))
        yield


def edit(subject: Subject, way: str, seed: int, config: BalancedSubnetConfig) -> nn.Module:
    """Return the edit after the last epoch, of a mask whose seed is so many steps from the subject's own."""
    data = replace(subject.data, seed=subject.data.seed + FAR * seed)
    with as_in(way):
        *_, (_, edited) = by_epoch(subject.model, data, replace(config, precision=WAYS[way]))
        return edited()


def dropped(model: nn.Module) -> Tensor:
    """Return which weights of the feed-forward matrices are 0."""
    return torch.cat([(weight == 0).flatten() for weight in mlp_parameters(model, matrices_only=True).values()])


def measure(subject: Subject, ways: list[str], seeds: range, config: BalancedSubnetConfig) -> dict[str, Tensor]:
    """Per cent left of each artifact, accuracy, and dropped weights that changed: by way, a row a seed."""
    rows: dict[str, list[list[float]]] = {way: [] for way in ways}
    first: Tensor | None = None
    for seed in seeds:
        kept: Tensor | None = None
        for way in ways:
            model = edit(subject, way, seed, config)
            chosen, after = dropped(model), subject.evaluator.measure(model)
            first = chosen if first is None else first
            kept, other = (chosen, first) if kept is None else (kept, kept)
            left = [after.memorized_share(kind).share or 0.0 for kind in subject.splits]
            changed = float((chosen & ~other).sum() / chosen.sum())
            rows[way].append([100 * value for value in (*left, after.accuracy.share or 0.0, changed)])
    return {way: torch.tensor(found) for way, found in rows.items()}


def chance(difference_S: Tensor) -> float:
    """Share of drawn signs of the seeds' differences with a mean as large."""
    signs_DS = torch.randint(2, (DRAWS, len(difference_S)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return float(((signs_DS * difference_S).mean(1).abs() >= difference_S.mean().abs() - 1e-6).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--skip", type=int, default=0, help="so many seeds, which an earlier run had")
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=DEFAULT_WAYS, help="the first is what the others are compared with")
    given = parser.parse_args()
    config = BalancedSubnetConfig(ratio=given.ratio, epochs=given.epochs)
    for path in given.runs:
        subject = subject_of(path, resolve_device(given.device))
        print(f"{path.name}\n| passes | {' | '.join(subject.splits)} | accuracy | changed | p |", flush=True)
        measured = measure(subject, given.ways, range(given.skip, given.skip + given.seeds), config)
        base = measured[given.ways[0]]
        for way, found in measured.items():
            cells = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in found[:, :-1].T]
            other = found[1:, -1] if way == given.ways[0] else found[:, -1]  # a first seed does not differ from itself
            print(f"| {way} | {' | '.join(cells)} | {other.mean():.1f} | {chance(found[:, 0] - base[:, 0]):.3f} |", flush=True)


if __name__ == "__main__":
    main()
