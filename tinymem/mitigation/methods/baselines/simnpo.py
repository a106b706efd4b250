"""SimNPO: negative preference optimization without a reference model, normalized by length.

Formula: minimize forget_weight * mean over forget rows of -(2 / beta) * log sigmoid(beta * (loss - delta)) + retain_weight * mean loss of
    the rows to keep, where loss is the mean over the row's tokens.
Source: Fan et al. 2024 (beta 4.5 and delta 0 as in OpenUnlearning, whose forget_weight of 0.125 forgets too little here); not part of the
    TinyMem paper.
Cost: epochs * 2 * forget rows forward and backward passes.
Options: epochs, learning_rate, weight_decay, batch_size, over, forget_weight, retain_weight, beta, delta.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import Batch, RetainConfig, descend, retain_loss
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.option_ranges import check_above


@dataclass(frozen=True, kw_only=True)
class SimNPOConfig(RetainConfig):
    """Options of SimNPO (NPO without a reference model)."""

    epochs: int = 10
    beta: float = 4.5
    delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, beta=0)


@editor("simnpo", config=SimNPOConfig, properties=Properties(unit="model", order="first", criterion="optimization", dual_objective=True))
def simnpo(model: nn.Module, data: MitigationData, config: SimNPOConfig) -> nn.Module:
    """The model after some steps on both terms."""

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        losses_B = row_losses(edited, batch.forget, config.over)
        lowered = simnpo_loss(losses_B, config, len(batch.whole.forget))
        return config.forget_weight * lowered + config.retain_weight * retain_loss(edited, batch)

    return descend(model, data, config, objective)


def simnpo_loss(losses_B: Tensor, config: SimNPOConfig, rows: int) -> Tensor:
    """Sum of -(2 / beta) * log sigmoid(beta * (loss - delta)), over the number of rows of the whole batch."""
    return -(2 / config.beta) * (F.logsigmoid(config.beta * (losses_B - config.delta)).sum() / rows)
