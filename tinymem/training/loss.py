"""The training loss: mean cross-entropy of all positions after the first, padding included, as in the published runs.

A model that is prompted past the end of a sequence has so learned to pad. With a small vocabulary the logits are written out; with a
large one they would be gigabytes, so the head works in pieces and computes each piece again for the gradient.

Shape suffixes: B rows, T tokens, P predicted tokens (T - 1), N predicted tokens of all rows, D embedding, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.attention import use_row_attention

LARGE_VOCABULARY = 8192
LOGITS_AT_A_TIME = 2**26
FUSED_WIDTHS = (16, 32, 64, 128)
"""Embeddings that the fused head's tiles hold: powers of two, and few enough for a GPU's shared memory."""


class LossModel(nn.Module):
    """A GPT that returns losses: the module that a training step calls, compiles and distributes."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        use_row_attention(gpt)
        self.gpt = gpt
        self.head = head_losses

    def forward(self, ids_BT: Tensor, *, each: bool = False) -> Tensor:
        """Mean loss, or with `each` the losses [B, P] of the tokens."""
        reduction = "none" if each else "mean"
        if self.gpt.config.vocab_size < LARGE_VOCABULARY:
            logits_BTV = self.gpt(ids_BT)
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten(), reduction=reduction)
        else:
            hidden_ND = self.gpt.transformer(ids_BT)[:, :-1].flatten(0, 1)
            losses_N = self.head(hidden_ND, self.gpt.transformer.wte.weight, ids_BT[:, 1:].flatten())
            loss = losses_N if each else losses_N.mean()
        return loss.view(len(ids_BT), -1) if each else loss


def batch_loss(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Mean next-token loss of a batch of rows [B, T], a scalar in nats; `model` is a `LossModel`, wrapped or not."""
    loss: Tensor = model(ids_BT)
    return loss


def keep_head_whole(model: LossModel) -> None:
    """Keep torch.compile out of a model's head; not where the head is defined, since this imports torch.compile, which takes seconds."""
    model.head = torch.compiler.disable(head_losses)


def head_losses(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy [N] of the tied head without writing all logits: a fused kernel for bf16 on GPUs, pieces elsewhere."""
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    with torch.autocast(device, enabled=False):
        if fuses(device, dtype, hidden_ND.shape[1]):
            from tinymem.training.kernels.fused_head import fused_head_losses

            return fused_head_losses(hidden_ND.to(dtype), weight_VD, targets_N)
        losses_N: Tensor = _PieceByPiece.apply(hidden_ND.to(dtype), weight_VD.to(dtype), targets_N)  # type: ignore[no-untyped-call]
        return losses_N


def fuses(device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether the language-model head runs as the fused kernel."""
    return device == "cuda" and dtype == torch.bfloat16 and width in FUSED_WIDTHS


class _PieceByPiece(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T`, some rows at a time; keeps the logarithm of each row's sum for the gradient."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        sums_N = torch.cat([(h @ weight_VD.T).float().logsumexp(1) for h in _pieces(hidden_ND, weight_VD)])
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, sums_N)
        return sums_N - (hidden_ND.float() * weight_VD[targets_N].float()).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_ND, weight_VD, targets_N, sums_N = ctx.saved_tensors
        d_hidden_ND, d_weight_VD = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD, dtype=torch.float32)
        start = 0
        for h in _pieces(hidden_ND, weight_VD):
            here = slice(start, start + len(h))
            d_logits = (h @ weight_VD.T).float().sub_(sums_N[here, None]).exp_()
            d_logits.scatter_add_(1, targets_N[here, None], -torch.ones_like(d_logits[:, :1]))
            d_logits = d_logits.mul_(gradients[0][here, None]).to(h.dtype)
            d_hidden_ND[here] = d_logits @ weight_VD
            d_weight_VD += d_logits.T @ h
            start += len(h)
        return d_hidden_ND, d_weight_VD.to(weight_VD.dtype), None


def _pieces(hidden_ND: Tensor, weight_VD: Tensor) -> tuple[Tensor, ...]:
    return hidden_ND.split(max(1, LOGITS_AT_A_TIME // len(weight_VD)))
