"""OPT's blocks with rows kept apart: transformers flattens a batch in them to [B * T, D], which hides the row of a neuron's value."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def keep_rows_apart(model: nn.Module) -> None:
    """Let the blocks of an OPT, in place, compute the same on [B, T, D]."""
    blocks: Any = model.get_submodule("model.decoder.layers")
    theirs = type(blocks[0])
    if theirs.forward is not _forward:
        ours = type(theirs.__name__, (theirs,), {"forward": _forward})
        for block in blocks:
            block.__class__ = ours


def _forward(self: Any, hidden_states: Tensor, **options: Any) -> Tensor:
    """Attention, then the feed-forward part; the 350M model normalizes after each instead of before."""
    first = self.do_layer_norm_before

    def dropped(x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, p=self.dropout, training=self.training)

    x_BTD = self.self_attn_layer_norm(hidden_states) if first else hidden_states
    x_BTD = hidden_states + dropped(self.self_attn(hidden_states=x_BTD, **options)[0])
    x_BTD = x_BTD if first else self.self_attn_layer_norm(x_BTD)
    h_BTD = self.final_layer_norm(x_BTD) if first else x_BTD
    x_BTD = x_BTD + dropped(self.fc2(self.activation_fn(self.fc1(h_BTD))))
    return x_BTD if first else self.final_layer_norm(x_BTD)
