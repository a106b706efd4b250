"""What the start of a run by whole-block kernels takes on a GPU: imports, CUDA, compiling, comparison, recording.

python benchmarks/start_profile.py --case math-4       # warm: with what lies compiled in TRITON_CACHE_DIR
TRITON_CACHE_DIR=$(mktemp -d) python benchmarks/start_profile.py --case math-4   # nothing compiled

Each line is of the seconds since the line before it; those of a kernel are of its thread, and overlap.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
sys.path.insert(0, str(Path(__file__).parents[1]))


class Clock:
    """Prints what passed since the last line."""

    def __init__(self) -> None:
        self.last = STARTED

    def __call__(self, what: str) -> None:
        now = time.perf_counter()
        print(f"  {now - self.last:7.3f} s  {what}", flush=True)
        self.last = now


def timed(owner: Any, name: str, wait: Callable[[], object]) -> None:
    """Print the seconds of each call of a function."""
    function = getattr(owner, name)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        wait()
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            wait()
            print(f"      {time.perf_counter() - began:7.3f} s in {name} (from {began - STARTED:.3f})", flush=True)

    setattr(owner, name, call)


def listen() -> None:
    """Print the seconds of each kernel's compiling, by stages."""
    from triton import knobs

    def heard(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        stages = " ".join(f"{name} {us / 1e6:.2f}" for name, us in times.lowering_stages)
        print(f"          {times.total / 1e6:6.2f} s {src.name:<28}{'cached' if cache_hit else stages}", flush=True)

    knobs.compilation.listener = heard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="math-4")
    parser.add_argument("--way", default="kernels")
    given = parser.parse_args()
    clock = Clock()
    import torch

    clock("import torch")
    import triton  # noqa: F401

    clock("import triton")
    from tinymem.bench import train
    from tinymem.bench.sizes import BATCH, TOKENS
    from tinymem.training.step import GraphedStep
    from tinymem.training.whole_step import gradients
    from tinymem.training.whole_step.step import KernelStep

    clock("import tinymem")
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    clock("start CUDA")
    listen()
    for owner, name in (
        (gradients, "compile_side_by_side"),
        (KernelStep, "_by_kernels"),
        (KernelStep, "_by_autograd"),
        (GraphedStep, "_capture"),
    ):
        timed(owner, name, torch.cuda.synchronize)
    case = train.the_case(given.case)
    rows = torch.randint(case.vocabulary, (8 * BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    step = train.our_step(case, rows, torch.device("cuda"), BATCH, given.way)
    torch.cuda.synchronize()
    clock("model and optimizer")
    step()
    torch.cuda.synchronize()
    clock("first step")
    step()
    torch.cuda.synchronize()
    clock("second step")
    print(f"  {time.perf_counter() - STARTED:7.3f} s in all; {torch.cuda.get_device_name()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
