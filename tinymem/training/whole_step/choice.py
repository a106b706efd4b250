"""Which trainings take the step of whole-block kernels, and why others go through autograd: the one table of it.

All rules hold for a model on a GPU; what is not in the table makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinymem.models.gpt2 import GPTConfig
from tinymem.runtime.device import triton_there
from tinymem.training.kernels.attention import HEAD_WIDTHS, LONGEST
from tinymem.training.loss import LARGE_VOCABULARY
from tinymem.training.whole_step.tiles import SMALL_VOCABULARY

if TYPE_CHECKING:
    from tinymem.training.step import GraphedStep

WIDTH = 128
FEED_FORWARD_STEP = 64
WITH_KERNELS = ("goldfish", "spectral-norm")
"""Regularizers that ride along: one weighs tokens by their ids alone, the other adds to the gradient of the weights."""


@dataclass(frozen=True)
class Training:
    """What the choice depends on.

    Attributes:
        config: sizes of the model.
        device: type of its device.
        precision: fp32 or bf16.
        row_tokens: tokens of a row.
        regularizers: their names.
        processes: that share each batch.
        wanted: the recipe's `training.kernels`.
    """

    config: GPTConfig
    device: str
    precision: str
    row_tokens: int
    regularizers: tuple[str, ...] = ()
    processes: int = 1
    wanted: bool = True


RULES: tuple[tuple[Callable[[Training], bool], str], ...] = (
    (lambda t: t.wanted, "training.kernels is false"),
    (lambda t: t.device == "cuda" and triton_there(), "no GPU with triton"),
    (lambda t: t.precision == "bf16", "{t.precision}, where products are in bf16"),
    (lambda t: t.processes == 1, "{t.processes} processes, which average their gradients"),
    (lambda t: t.config.n_embd == WIDTH, "an n_embd of {t.config.n_embd}, where tiles are of {WIDTH}"),
    (lambda t: t.config.n_embd // t.config.n_head in HEAD_WIDTHS, "heads of another width than {HEAD_WIDTHS}"),
    (lambda t: t.config.d_ff % FEED_FORWARD_STEP == 0, "{t.config.d_ff} neurons, no multiple of {FEED_FORWARD_STEP}"),
    (lambda t: t.config.activation_function == "relu", "{t.config.activation_function}, not ReLU"),
    (
        lambda t: t.config.vocab_size <= SMALL_VOCABULARY or t.config.vocab_size >= LARGE_VOCABULARY,
        "{t.config.vocab_size} words, too many for the last kernel ({SMALL_VOCABULARY}) and too few for the fused head",
    ),
    (lambda t: t.row_tokens <= LONGEST, "rows of more than {LONGEST} tokens"),
    (lambda t: set(t.regularizers) <= {*WITH_KERNELS}, "a regularizer other than {WITH_KERNELS}"),
)


def why_not(training: Training) -> str | None:
    """The first reason against the kernels' step; None if it is taken."""
    reason = next((reason for holds, reason in RULES if not holds(training)), None)
    return reason and reason.format(t=training, **globals())


def kernel_step(training: Training) -> type[GraphedStep] | None:
    """The kernels' step where it is taken, else None."""
    if why_not(training):
        return None
    from tinymem.training.whole_step.step import KernelStep

    return KernelStep
