"""Which trainings take the step of whole-block kernels, and why others go through autograd: the one table of it.

What the kernels can do is one part of it; where a run takes them unasked (`training.kernels: auto`) is the other: only where gradients,
trainings and times have been measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from tinymem.models.gpt2 import GPTConfig
from tinymem.runtime.device import triton_there
from tinymem.training.kernels.attention import HEAD_WIDTHS, LONGEST, MOST_SEQUENCES
from tinymem.training.loss import LARGE_VOCABULARY
from tinymem.training.whole_step.tiles import SMALL_VOCABULARY

if TYPE_CHECKING:
    from tinymem.training.step import GraphedStep

WIDTHS, MEASURED_WIDTH, MEASURED_HEADS = (64, 128), 128, (32, 64)
FEED_FORWARD_STEP = 64
MOST_TOKENS = 2**21
"""Tokens of a batch whose numbers, 3 x 128 for each, have 32-bit addresses."""
LEAST_STEPS, MEASURED_PROCESSES = 500, 2
RIDING = ("goldfish", "loss-truncation", "spectral-norm", "example-tied-dropout", "mem-sinks")
"""Regularizers that ride along: two weigh tokens, one adds to the gradient of the weights, two switch neurons off row by row."""
HOPPER = (9, 0)
"""Compute capability of H100 and H200."""


@dataclass(frozen=True)
class Training:
    """What the choice depends on.

    Attributes:
        config: sizes of the model.
        device: of the training.
        precision: fp32 or bf16.
        row_tokens: tokens of a row.
        batch_size: rows of a batch.
        regularizers: their names.
        processes: that share each batch.
        kernels: the recipe's `training.kernels`.
        steps: how many there will be; None: many.
    """

    config: GPTConfig
    device: torch.device
    precision: str
    row_tokens: int
    batch_size: int
    regularizers: tuple[str, ...] = ()
    processes: int = 1
    kernels: bool | Literal["auto"] = "auto"
    steps: int | None = None


Rules = tuple[tuple[Callable[[Training], bool], str], ...]
POSSIBLE: Rules = (
    (lambda t: t.kernels is not False, "training.kernels is false"),
    (lambda t: t.device.type == "cuda" and triton_there(), "no GPU with triton"),
    (lambda t: t.precision == "bf16", "{t.precision}, where products are in bf16"),
    (lambda t: t.config.n_embd in WIDTHS, "an n_embd of {t.config.n_embd}, where tiles are of {WIDTHS}"),
    (lambda t: t.config.n_embd // t.config.n_head in HEAD_WIDTHS, "heads of another width than {HEAD_WIDTHS}"),
    (lambda t: t.config.d_ff % FEED_FORWARD_STEP == 0, "{t.config.d_ff} neurons, no multiple of {FEED_FORWARD_STEP}"),
    (lambda t: t.config.activation_function == "relu", "{t.config.activation_function}, not ReLU"),
    (
        lambda t: t.config.vocab_size <= SMALL_VOCABULARY or t.config.vocab_size >= LARGE_VOCABULARY,
        "{t.config.vocab_size} words, too many for the last kernel ({SMALL_VOCABULARY}) and too few for the fused head",
    ),
    (lambda t: t.row_tokens <= LONGEST, "rows of more than {LONGEST} tokens"),
    (lambda t: t.batch_size * t.row_tokens <= MOST_TOKENS, "batches of more than {MOST_TOKENS} tokens"),
    (lambda t: t.batch_size * t.config.n_head <= MOST_SEQUENCES, "more than {MOST_SEQUENCES} heads of all rows together"),
    (lambda t: {*t.regularizers} <= {*RIDING}, "a regularizer other than {RIDING}"),
)
MEASURED: Rules = (
    (lambda t: capability(t.device) == HOPPER, "not measured on this GPU"),
    (lambda t: t.config.n_embd == MEASURED_WIDTH, "not measured at an n_embd of {t.config.n_embd}"),
    (lambda t: t.config.n_embd // t.config.n_head in MEASURED_HEADS, "not measured with heads of another width than {MEASURED_HEADS}"),
    (lambda t: len(t.regularizers) <= 1, "not measured with several regularizers at once"),
    (lambda t: t.processes <= MEASURED_PROCESSES, "not measured where {t.processes} processes share a batch"),
    (lambda t: t.processes == 1 or not t.regularizers, "not measured with a regularizer where processes share a batch"),
    (lambda t: t.steps is None or t.steps >= LEAST_STEPS, "fewer than {LEAST_STEPS} steps, which save less than compiling takes"),
)


def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU."""
    return torch.cuda.get_device_capability(device)


def why_not(training: Training) -> str | None:
    """The first reason against the kernels' step; None if it is taken."""
    rules = POSSIBLE + (MEASURED if training.kernels == "auto" else ())
    reason = next((reason for holds, reason in rules if not holds(training)), None)
    return reason and reason.format(t=training, **globals())


def kernel_step(training: Training) -> type[GraphedStep] | None:
    """The kernels' step where it is taken, else None."""
    if why_not(training):
        return None
    from tinymem.training.whole_step.step import KernelStep

    return KernelStep
