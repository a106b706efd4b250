"""Choice of the attention kernel of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tinymem.models.gpt2 import GPT, Attention, causal_attention
from tinymem.runtime.device import triton_there

LONGEST = 512
"""Longest row, in tokens, that `benchmarks/row_attention.py` has measured; the kernel is the faster there still."""
MOST_SEQUENCES = 65_535
"""Most heads of all rows together: the limit of a grid's second dimension."""
HEAD_WIDTHS = (16, 32, 64, 128)


def use_row_attention(gpt: GPT) -> None:
    """Let a model attend through the kernel for short rows wherever it applies: in bf16, on a GPU with triton.

    The values are those of the library up to rounding. The kernel has no second derivative and no batching rule.
    """
    if not torch.cuda.is_available() or not triton_there():
        return
    from tinymem.training.kernels.row_attention import row_attention

    attend = short_rows_by(row_attention)
    for module in gpt.modules():
        if isinstance(module, Attention):
            module.attend = attend


@contextmanager
def row_attention_in(model: nn.Module) -> Iterator[None]:
    """Inside the context a GPT attends as it does in training; models of other classes stay as they are."""
    with _put_back(model):
        if isinstance(model, GPT):
            use_row_attention(model)
        yield


@contextmanager
def library_attention_in(model: nn.Module) -> Iterator[None]:
    """Inside the context a GPT attends through the library, which compiles nothing."""
    with _put_back(model) as attentions:
        for module in attentions:
            module.attend = causal_attention
        yield


@contextmanager
def _put_back(model: nn.Module) -> Iterator[list[Attention]]:
    """A model's attentions, which attend as before when the context is left."""
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    before = [module.attend for module in attentions]
    try:
        yield attentions
    finally:
        for module, attend in zip(attentions, before, strict=True):
            module.attend = attend


def short_rows_by(kernel: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> Callable[[Tensor, int], Tensor]:
    """Attention that a kernel computes where it applies, and the library elsewhere."""

    def attend(qkv_BTE: Tensor, n_head: int) -> Tensor:
        B, T, E = qkv_BTE.shape
        fits = T <= LONGEST and B * n_head <= MOST_SEQUENCES and E // 3 // n_head in HEAD_WIDTHS
        if fits and qkv_BTE.is_cuda and qkv_BTE.dtype == torch.bfloat16:
            return kernel(qkv_BTE, n_head)[0]
        return causal_attention(qkv_BTE, n_head)

    return attend
