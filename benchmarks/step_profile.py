"""What a training step's time on a GPU goes into: its kernels by kind, and the time in which none runs.

python benchmarks/step_profile.py --case math-4 --case math-16
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.bench.sizes import BATCH, CASES, TOKENS
from tinymem.bench.train import our_step

import torch  # isort: skip (after tinymem, which sets its threads)
from torch.profiler import ProfilerActivity, profile  # isort: skip

# The first word found in a kernel's name gives its kind.
KINDS = {
    "weights' gradients": ("weight_gradients",),
    "blocks, forward": ("first_forward", "block_forward", "last_forward", "last_hidden"),
    "blocks, backward": ("block_backward", "first_backward", "hidden_backward"),
    "folding": ("fold_weights", "unfold_gradients"),
    "attention, backward": ("attention_backward", "flash_bwd", "fmha_cutlassB", "bprop"),
    "attention, forward": ("_attention_forward", "flash_fwd", "fmha_cutlassF", "fprop", "cudnn_generated_fort_native_sdpa"),
    "compiled: reductions": ("triton_per", "triton_red"),
    "compiled: elementwise": ("triton_poi",),
    "compiled: several in one": ("triton_for",),
    "matrix products": ("gemm", "cutlass", "nvjet", "splitK", "sm90_xmma", "cublas"),
    "head and loss": ("_head", "cross_entropy", "nll", "log_softmax"),
    "AdamW": ("_adamw",),
    "copies and joins": ("Cat", "Memcpy", "Memset", "copy", "fill", "index"),
}


def kind_of(kernel: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in kernel for word in words)), "other")


def show(case_name: str, way: str, steps: int, top: int) -> None:
    case = next(c for c in CASES if c.name == case_name)
    rows = torch.randint(case.vocabulary, (8 * BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    step = our_step(case, rows, torch.device("cuda"), BATCH, way)
    for _ in range(20):
        step()
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(steps):
        step()
    end.record()
    torch.cuda.synchronize()
    whole = 1e3 * begin.elapsed_time(end) / steps
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    times, counts = Counter(), Counter()
    for event in found.events():
        if event.device_time_total and event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.device_time_total / steps
            counts[event.name] += 1
    by_kind, number = Counter(), Counter()
    for name, microseconds in times.items():
        by_kind[kind_of(name)] += microseconds
        number[kind_of(name)] += counts[name] / steps
    print(
        f"{case.name} {way}: {whole:.0f} us a step without the profiler; {sum(number.values()):.0f} kernels, {sum(times.values()):.0f} us"
    )
    for kind, microseconds in by_kind.most_common():
        print(f"  {kind:<24}{microseconds:8.1f} us in {number[kind]:5.1f} kernels")
    for name, microseconds in times.most_common(top):
        print(f"    {microseconds:8.1f} us {counts[name] / steps:5.1f} x  {name[:110]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append")
    parser.add_argument("--way", default="ours")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--top", type=int, default=25)
    given = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}")
    for case in given.case or ["math-4"]:
        show(case, given.way, given.steps, given.top)


if __name__ == "__main__":
    main()
