"""Losses of rows, as the methods use them."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.evaluation.perplexity import token_losses as fp32_losses
from tinymem.models.adapters import heads_apart, logits

Over = Literal["row", "suffix"]
LOGITS = 2**25
"""Logits that are in fp32 at once, of a model in half precision."""
FEW = 2**22
"""So many and fewer are taken to fp32 at once."""


def row_losses(model: nn.Module, rows: Rows, over: Over = "row") -> Tensor:
    """Mean next-token loss [B] of each row: over the whole row, or over its suffix with the prompt given.

    A whole row of a corpus holds its padding, as in training; rows of different lengths end where they end.
    """
    if not len(rows):  # a piece of a batch without rows of this kind
        return torch.zeros(0, device=rows.ids.device)
    start = max(0, int(rows.prompt.min()) - 1) if over == "suffix" and heads_apart(model) else 0
    losses_BT = token_losses(logits(model, rows.ids, start)[:, :-1], rows.ids[:, start + 1 :])
    if over == "row" and rows.length is None:
        return losses_BT.mean(1)
    window_BT = (rows.own() if over == "row" else rows.window())[:, start + 1 :].to(losses_BT.device)
    return (losses_BT * window_BT).sum(1) / window_BT.sum(1).clamp(min=1)


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy [B, T] in fp32; many logits in half precision are taken to fp32 a piece at a time."""
    targets_BT = targets_BT.to(logits_BTV.device)
    if logits_BTV.dtype not in (torch.bfloat16, torch.float16) or logits_BTV.numel() <= FEW:
        return fp32_losses(logits_BTV, targets_BT)
    losses_n: Tensor = _HalfLosses.apply(logits_BTV.flatten(0, 1), targets_BT.flatten())  # type: ignore[no-untyped-call]
    return losses_n.view_as(targets_BT)


class _HalfLosses(torch.autograd.Function):
    """Cross-entropy [n] of logits [n, V] in half precision: nothing of the vocabulary's size is kept in fp32."""

    @staticmethod
    def forward(ctx: Any, logits_nV: Tensor, targets_n: Tensor) -> Tensor:
        ctx.save_for_backward(logits_nV, targets_n)
        tokens = _tokens_at_once(logits_nV)
        pieces = zip(logits_nV.split(tokens), targets_n.split(tokens), strict=True)
        return torch.cat([F.cross_entropy(piece.float(), targets, reduction="none") for piece, targets in pieces])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits_nV, targets_n = ctx.saved_tensors
        found_nV = torch.empty_like(logits_nV)
        parts, tokens = (logits_nV, targets_n, gradients[0], found_nV), _tokens_at_once(logits_nV)
        for piece, targets, gradient, found in zip(*(part.split(tokens) for part in parts), strict=True):
            share = piece.float().softmax(1)
            share[torch.arange(len(share), device=share.device), targets] -= 1
            found.copy_(share.mul_(gradient[:, None]))
        return found_nV, None


def _tokens_at_once(logits_nV: Tensor) -> int:
    return max(1, LOGITS // logits_nV.shape[1])
