"""Launches of triton kernels that can be held back, so that all kernels of a pass are compiled side by side before the first one runs.

Compiling takes about a second a kernel, most of it outside of Python (LLVM, ptxas, and a C compiler for what launches it), and a pass has
a dozen. Threads compile and load kernels; only the caller's launches them.
"""

# triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

_held: ContextVar[dict[object, list[Callable[[], object]]] | None] = ContextVar("held", default=None)


def launch(kernel: Any, *grid: int) -> Callable[..., None]:
    """The function that launches a kernel over a grid; under `compile_side_by_side` it only notes that the kernel would be."""
    held = _held.get()
    if held is None:
        launched: Callable[..., None] = kernel[grid]
        return launched

    def hold(*arguments: Any, **options: Any) -> None:
        version = kernel, *(flag for flag in arguments if isinstance(flag, bool)), *sorted(options.items())
        held.setdefault(version, []).append(partial(kernel.run, *arguments, grid=grid, warmup=True, **options))

    return hold


def compile_side_by_side(call: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Begin to compile the kernels that a call would launch on a GPU, each version by a thread of its own, and launch none.

    Returns:
        What waits until all are there.
    """
    held: dict[object, list[Callable[[], object]]] = {}
    token = _held.set(held)
    try:
        call()
    finally:
        _held.reset(token)
    from triton.runtime.cache import triton_key

    pool = ThreadPoolExecutor(max(1, len(held)))
    key = pool.submit(triton_key)  # a hash of triton's 400 MB, which it keeps: all threads at once would each make their own

    def compile_all(launches: list[Callable[[], object]]) -> None:
        key.result()
        with torch.cuda.device(device):
            for compile_one in launches:
                getattr(compile_one(), "run", None)  # of a compiled kernel: loads it, and compiles its launcher

    begun = [pool.submit(compile_all, launches) for launches in held.values()]
    pool.shutdown(wait=False)

    def wait() -> None:
        for one in begun:
            one.result()

    return wait
