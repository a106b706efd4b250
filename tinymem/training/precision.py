"""Precision of a run, and the decision whether compiling pays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
# Compiling takes half a minute or more and saves about half of each step (2 ms for 4 layers): it pays from here on.
STEPS_WORTH_COMPILING = 30_000


def resolve_precision(precision: Precision, device: str) -> Literal["fp32", "bf16"]:
    """The precision on a device; `auto` is bf16 (with fp32 weights) on GPUs that have it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def precision_on_gpus() -> Literal["fp32", "bf16"]:
    """What `auto` is on the GPUs of this machine, or, where there are none, on those that a plan made here is for."""
    return resolve_precision("auto", "cuda") if torch.cuda.is_available() else "bf16"


def precision_context(precision: str, device: str) -> Callable[[], AbstractContextManager[object]]:
    """Factory of the context in which the forward pass runs."""
    if precision == "bf16":
        return partial(torch.autocast, device.partition(":")[0], dtype=torch.bfloat16)
    return nullcontext


def worth_compiling(choice: bool | Literal["auto"], device: str, steps: int) -> bool:
    """Whether to compile the model for a run of `steps` steps; `auto` compiles long runs on GPUs."""
    if not device.startswith("cuda"):
        return False
    return steps >= STEPS_WORTH_COMPILING if choice == "auto" else choice
