"""Compiling of a step's kernels, all at once: one after another they would take as long as torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from tinymem.training.whole_step.passes import BatchPass


def compile_kernels(batch: BatchPass) -> None:
    """Call every kernel of a pass once, each in a thread of its own, on whatever its buffers hold; the next pass overwrites all of that."""
    device = batch.w.flat.device

    def on_device(call: Callable[[], None]) -> None:
        with torch.cuda.device(device):
            call()

    calls = launches(batch)
    torch.cuda.synchronize(device)
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(on_device, calls))
    torch.cuda.synchronize(device)


def launches(batch: BatchPass) -> list[Callable[[], None]]:
    """One call for each kernel of a pass, and for each of its versions; those that compile longest come first."""
    part, last = batch.parts[0], batch.w.L - 1
    ends = (
        (batch.first_forward, batch.first_backward) if batch.w.V == 0 else (batch.last_forward, batch.first_forward, batch.first_backward)
    )
    layered = (batch.attention_backward, batch.attention, batch.block_weight_gradients, batch.attention_weight_gradients)
    calls = [partial(batch.block_backward, layer, part) for layer in {0, last}]
    calls += [partial(batch.block_forward, 0, part)] if last else []
    calls += [*(partial(call, last, part) for call in layered), *(partial(call, part) for call in ends)]
    return [*calls, batch.w.fold, batch.w.unfold]
