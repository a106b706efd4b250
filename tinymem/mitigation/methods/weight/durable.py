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
from torch import nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.models.adapters import mlp_parameters


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
    parameters = mlp_parameters(model)
    totals = [torch.zeros_like(p) for p in parameters.values()]
    for rows in data.forget.batches(config.batch_size):
        gradients = torch.autograd.grad(row_losses(model, rows, config.over).sum(), list(parameters.values()))
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient
    return Scores("weight", {name: total.abs() for name, total in zip(parameters, totals, strict=True)})
