"""Gradient ascent: raise the loss of the memorized rows.

Idea: undo learning by walking uphill. Diverges, so it must be stopped early: few epochs, a small rate.
Formula: minimize -(mean loss of the forget rows).
Source: Jang et al. 2023; not part of the TinyMem paper.
Cost: epochs * forget rows forward and backward passes.
Options: epochs, learning_rate, weight_decay, batch_size, over.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import BaselineConfig, Batch, descend
from tinymem.mitigation.methods.losses import row_losses


@dataclass(frozen=True, kw_only=True)
class GradientAscentConfig(BaselineConfig):
    """Options of gradient ascent on the forget rows."""

    epochs: int = 4


@editor("gradient-ascent", config=GradientAscentConfig, properties=Properties(unit="model", order="first", criterion="optimization"))
def gradient_ascent(model: nn.Module, data: MitigationData, config: GradientAscentConfig) -> nn.Module:
    """The model after gradient ascent on the forget rows."""

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        return -row_losses(edited, batch.forget, config.over).sum() / len(batch.whole.forget)

    return descend(model, data, config, objective)
