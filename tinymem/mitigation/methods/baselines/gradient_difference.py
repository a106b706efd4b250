"""Gradient difference: raise the loss of the memorized rows while that of the rows to keep stays low.

Formula: minimize -forget_weight * mean loss of the forget rows + retain_weight * retain term, which is the mean loss of the rows to keep
    (`retain_term: loss`) or the divergence KL(original || edited) of their next-token distributions (`retain_term: kl`).
Source: Liu et al. 2022; Maini et al. 2024 (TOFU); not part of the TinyMem paper.
Cost: epochs * 2 * forget rows forward and backward passes; `kl` adds a forward pass of the original.
Options: epochs, learning_rate, weight_decay, batch_size, over, forget_weight, retain_weight, retain_term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import Batch, RetainConfig, descend, retain_loss
from tinymem.mitigation.methods.losses import row_losses
from tinymem.models.adapters import logits


@dataclass(frozen=True, kw_only=True)
class GradientDifferenceConfig(RetainConfig):
    """Options of gradient difference: ascent on the forget rows, and a retain term."""

    epochs: int = 5
    retain_term: Literal["loss", "kl"] = "loss"


@editor(
    "gradient-difference",
    config=GradientDifferenceConfig,
    properties=Properties(unit="model", order="first", criterion="optimization", dual_objective=True),
)
def gradient_difference(model: nn.Module, data: MitigationData, config: GradientDifferenceConfig) -> nn.Module:
    """The model after some steps on both terms."""

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        kept = retain_loss(edited, batch) if config.retain_term == "loss" else divergence(model, edited, batch.retain, batch.whole.retain)
        raised = row_losses(edited, batch.forget, config.over).sum() / len(batch.whole.forget)
        return config.retain_weight * kept - config.forget_weight * raised

    return descend(model, data, config, objective)


def divergence(original: nn.Module, edited: nn.Module, rows: Rows, whole: Rows) -> Tensor:
    """The share of some rows in the mean KL(original || edited) of the next-token distributions of a whole batch, a scalar in nats."""
    if not len(rows):  # a piece of a batch without rows to keep
        return torch.zeros((), device=rows.ids.device)
    with torch.no_grad():
        before_BTV = logits(original, rows.ids)[:, :-1].float().log_softmax(-1)
    after_BTV = logits(edited, rows.ids)[:, :-1].float().log_softmax(-1)
    divergence_BT = (before_BTV.exp() * (before_BTV - after_BTV)).sum(-1)
    if rows.length is None:
        return divergence_BT.sum() / whole.ids[:, 1:].numel()
    return divergence_BT[rows.own()[:, 1:]].sum() / whole.own()[:, 1:].sum()
