"""Durable: zero the weights of each layer whose gradients on the memorized rows are largest.

Idea: the weights that the loss of the memorized rows is most sensitive to hold them (after Zhang et al. 2022, durable backdoors).
Formula: score = |d/dw sum over forget rows of the row's mean loss|; the top K / layers of each layer are zeroed.
Source: TinyMem paper, section 3.3, Algorithm 4 and A.3.2. The published code ranks within each tensor (`scope: tensor`).
    On a backdoor it does no better than chance (published: 28 % left at an accuracy of 86 %): the loss of what is known by heart is flat,
    and the gradient of a whole row is that of its unpredictable start. `over: suffix` leaves that out (docs/unlearning.md has figures).
Cost: one forward and backward pass over the forget rows.
Options: ratio, of, scope, over (loss of the `row` or of its `suffix`), batch_size. Eligible: weights and biases of the feed-forward blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.mitigation.methods.neuron._common import frozen
from tinymem.mitigation.methods.pieces import Pieces, add_gradients, rows_at_once
from tinymem.models.adapters import mlp_parameters

ROOM = 33 * 2**28
"""Bytes of a piece's activations: more than of other methods, since only a sum in fp32 is kept beside the model."""


@dataclass(frozen=True, kw_only=True)
class DurableConfig(AblationConfig):
    """Options of Durable. The grid is that of the paper's A.3.5."""

    over: Over = "row"
    batch_size: int = 64

    grid: ClassVar[Grid] = grids.WEIGHT
    published_grid: ClassVar[Grid] = grids.WEIGHT_RUN


@scorer("durable", config=DurableConfig, properties=Properties(unit="weight", order="first", layer_wise=True))
def durable(model: nn.Module, data: MitigationData, config: DurableConfig) -> Scores:
    """Absolute accumulated gradients of the feed-forward parameters."""
    parameters, rows = mlp_parameters(model), data.forget
    totals = {name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for name, p in parameters.items()}
    tokens = rows.ids.shape[1]
    pieces = Pieces(model, tokens, gradients=True, rows=rows_at_once(model, tokens, gradients=True, room=ROOM))

    def loss(index: Tensor) -> Tensor:
        return row_losses(model, rows.take(index), config.over).sum()

    at_once = config.batch_size if pieces.rows is None else len(rows)  # a sum: its pieces may be of any size
    with frozen(model, parameters.values()):
        for index in torch.arange(len(rows), device=rows.ids.device).split(at_once):
            add_gradients(pieces, index, loss, parameters, lambda name, gradient: totals[name].add_(gradient))
    return Scores("weight", {name: total.abs_() for name, total in totals.items()})
