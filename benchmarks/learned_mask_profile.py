"""Where a step of BalancedSubnet spends its time on a GPU, and what each part of it is worth.

    python benchmarks/learned_mask_profile.py                 # on a GPU: checks, selection, step, kernels, the whole method
    python benchmarks/learned_mask_profile.py --device cpu --scale 0.02   # the same path, small

The case is that of `tinymem bench unlearn`: 4 layers, 200 + 27,000 rows of 150 tokens, batch 64, 8 matrices of 65,536 weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.bench.case import math_case
from tinymem.data.rows import concatenate
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods.replay import Replayed, together
from tinymem.mitigation.methods.weight import _selection
from tinymem.mitigation.methods.weight._batches import batches
from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, initial_scores
from tinymem.mitigation.methods.weight._mask_kernels import mask_steps
from tinymem.mitigation.methods.weight.balanced_subnet import STEPS_AT_ONCE, BalancedSubnetConfig, coefficients
from tinymem.runtime.device import describe_device, resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor  # isort: skip

SHAPES = ((8, 65_536), (4, 131_712), (1, 524_288))


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median_us(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median microseconds of ten calls in a row, per call (on a GPU: of ten calls in one CUDA graph)."""
    calls: Callable[[], object] = lambda: [work() for _ in range(10)]  # noqa: E731
    for _ in range(3):
        work()
    synchronize(device)
    if device.startswith("cuda"):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            calls()
        calls = graph.replay
    seconds = []
    for _ in range(repeats if device.startswith("cuda") else 3):
        started = time.perf_counter()
        calls()
        synchronize(device)
        seconds.append((time.perf_counter() - started) / 10)
    return statistics.median(seconds) * 1e6


def check(device: str) -> None:
    """The choice against a stable sort: random values, values with many ties, infinities, every kind of count."""
    generator = torch.Generator().manual_seed(0)
    cases = 0
    for G, N in SHAPES:
        counts = (1, 2, N // 1000, N // 10, N // 2, N - 1) if SHAPES[0] == (G, N) else (2, N // 10, N - 1)  # each compiles anew
        for levels in (0, 1000, 2):
            scores = torch.rand(G, N, generator=generator) - 0.5
            scores = (scores * levels).round() / max(levels, 1) if levels else scores
            scores[:, ::9973] = float("inf")
            scores, weights = scores.to(device), torch.rand(G, N, generator=generator).add(1).to(device)
            for lowest in (False, True):
                values = -scores.abs() if lowest else scores.abs()
                order = values.sort(dim=1, descending=True, stable=True).indices
                for count in counts:
                    expected = weights.scatter(1, order[:, :count], 0.0)
                    kept = _selection.without_extreme(weights, scores, count, lowest=lowest, dtype=torch.float32)
                    assert torch.equal(kept, expected), (G, N, levels, lowest, count)
                    assert torch.equal(_selection.extreme(scores, count, lowest=lowest), expected == 0)
                    cases += 1
    print(f"selection: {cases} cases equal a stable sort (kernel: {_selection.use_kernel(scores)})")


def selection(device: str) -> None:
    """Microseconds to choose 10 % of each row, by several ways."""
    print("\n| shape | ours | topk, row by row | topk, batched | kthvalue |\n| --- | --- | --- | --- | --- |")
    for G, N in SHAPES:
        scores = (torch.rand(G, N, generator=torch.Generator().manual_seed(0)) - 0.5).to(device)
        K, ones = N // 10, torch.ones_like(scores)
        ways: list[Callable[[], object]] = [
            lambda s=scores, w=ones, k=K: _selection.without_extreme(w, s, k, lowest=False, dtype=torch.float32),
            lambda s=scores, k=K: [row.abs().topk(k).indices for row in s],
            lambda s=scores, k=K: s.abs().topk(k, dim=1, sorted=False).indices,
            lambda s=scores, k=K: s.abs().kthvalue(s.shape[1] - k + 1, dim=1).values,
        ]
        print(f"| {G} x {N} | {' | '.join(f'{median_us(way, device):.0f} us' for way in ways)} |", flush=True)


def step_of(case, config: BalancedSubnetConfig) -> tuple[LearnedMask, Callable[[Tensor], None], list[Tensor]]:
    """A mask, its steps, and an epoch of batches, as `balanced_subnet` has them."""
    data, generator = case.data, case.data.generator()
    mask, rows = LearnedMask(case.model, config, initial_scores(case.model, data.seed)), concatenate([data.forget, data.retain])
    forget_N = torch.arange(len(rows), device=rows.ids.device) < len(data.forget)
    draws = list(batches(len(data.forget), len(data.retain), "shuffled", config.batch_size, generator))
    mask.by_kernels = mask_steps(mask, rows, coefficients(forget_N[: config.batch_size], config), config.epochs * len(draws))

    def step(index_KB: Tensor) -> None:
        with mask.passes():
            mask.steps(rows, coefficients(forget_N[index_KB], config), index_KB)

    at_once = 1 if mask.by_kernels is None else STEPS_AT_ONCE
    whole = [index_B for index_B in draws if len(index_B) == config.batch_size]
    return mask, step, [*together(whole[: len(whole) // at_once * at_once], at_once, forget_N.device)]


def steps(case, device: str, count: int, top: int) -> None:
    """Milliseconds of a replayed step in each precision, how far the masks drift apart, and the kernels of one replay."""
    masks: dict[str, Tensor] = {}
    for precision in ("fp32", "tf32", "bf16"):
        mask, step, draws = step_of(case, BalancedSubnetConfig(ratio=0.1, precision=precision))
        replayed, at_once = Replayed(step, case.model, steps=count), len(draws[0])
        taken = [draws[k % len(draws)] for k in range(-(-count // at_once) + 5)]
        for index_KB in taken[:5]:
            replayed(index_KB)
        synchronize(device)
        started = time.perf_counter()
        for index_KB in taken[5:]:
            replayed(index_KB)
        synchronize(device)
        took = (time.perf_counter() - started) / at_once / len(taken[5:])
        print(f"\nstep, {precision}, {at_once} at once: {took * 1e3:.3f} ms (mean of {at_once * len(taken[5:])})")
        masks[precision] = torch.cat([(m == 0).flatten() for m in mask.matrices(torch.float32).values()])
        print(f"dropped weights shared with fp32: {float((masks[precision] & masks['fp32']).sum() / masks['fp32'].sum()):.2%}")
        kernels(replayed, draws[0], device, top)


def kernels(step: Callable[[Tensor], None], index: Tensor, device: str, top: int) -> None:
    """The longest kernels (CPU: operators) of a call."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        for _ in range(3):
            step(index)
        synchronize(device)
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=key, row_limit=top, max_name_column_width=70))


def method(case, device: str, epochs: int) -> None:
    """Seconds of the whole edit, as `tinymem bench unlearn` times it."""
    balanced = UNLEARNERS.get("balanced-subnet")
    for precision in ("fp32", "tf32", "bf16"):
        config = BalancedSubnetConfig(ratio=0.1, epochs=epochs, precision=precision)
        synchronize(device)
        started = time.perf_counter()
        apply(balanced, case.model, case.data, config)
        synchronize(device)
        print(f"balanced-subnet, {epochs} epochs, {precision}: {time.perf_counter() - started:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of the paper's corpus")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--top", type=int, default=25, help="kernels to show")
    given = parser.parse_args()
    device = resolve_device(given.device)
    print(f"{describe_device(device)}, torch {torch.__version__}")
    check(device)
    selection(device)
    case = math_case(given.scale, device)
    steps(case, device, given.steps, given.top)
    method(case, device, given.epochs)


if __name__ == "__main__":
    main()
