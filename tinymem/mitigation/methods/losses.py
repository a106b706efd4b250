"""Losses of rows, as the methods use them."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.models.adapters import logits

Over = Literal["row", "suffix"]


def row_losses(model: nn.Module, rows: Rows, over: Over = "row") -> Tensor:
    """Mean next-token loss [B] of each row: over the whole row, or over its suffix with the prompt given.

    A whole row of a corpus holds its padding, as in training; rows of different lengths end where they end.
    """
    logits_BTV = logits(model, rows.ids)[:, :-1].float()
    losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), rows.ids[:, 1:], reduction="none")
    if over == "row" and rows.length is None:
        return losses_BT.mean(1)
    window_BT = (rows.own() if over == "row" else rows.window())[:, 1:]
    return (losses_BT * window_BT).sum(1) / window_BT.sum(1).clamp(min=1)
