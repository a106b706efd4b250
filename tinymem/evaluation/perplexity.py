"""Perplexity: exp of the token-weighted mean loss in nats (lower is better, at least 1)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy [B, T] in nats and fp32 of logits of any dtype.

    The tokens are one dimension for torch's loss: its softmax over the middle of three is several times as slow, on a CPU too.
    """
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)


def loss_sum(logits_BTV: Tensor, ids_BT: Tensor, scored_BT: Tensor) -> Tensor:
    """Summed cross-entropy of the scored tokens of rows [N, T], a float64 scalar in nats."""
    losses_BT = token_losses(logits_BTV[:, :-1], ids_BT[:, 1:])
    return (losses_BT.double() * scored_BT[:, 1:]).sum()


def perplexity(total_loss: float, tokens: int) -> float | None:
    """Perplexity exp(total_loss / tokens); None for no tokens, and where JSON cannot hold the value (overflow, NaN)."""
    if not tokens:
        return None
    mean = total_loss / tokens
    return math.exp(mean) if mean < 700 else None
