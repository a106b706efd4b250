"""Threads of training on the CPU: the same number on every machine and beside any number of other runs.

Threads share out the terms of a sum, so another number of them rounds otherwise, and after some thousand steps weights and counts differ.
A run's id does not say how many there were; hence one number for all, and a record of those that were there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRAINING_THREADS = 2


@contextmanager
def training_threads(device: torch.device) -> Iterator[int | None]:
    """Inside the context torch has `TRAINING_THREADS` threads, or those it has where OMP_NUM_THREADS is set; yields their number.

    On a GPU nothing is changed, and the number is None: its sums do not depend on the CPU's threads.
    """
    if device.type != "cpu":
        yield None
        return
    before = torch.get_num_threads()
    try:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(TRAINING_THREADS)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
