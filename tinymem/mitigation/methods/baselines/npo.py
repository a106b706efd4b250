"""NPO (negative preference optimization): push the memorized rows below the original model's probability, gently.

Idea: gradient ascent whose steps fade once a row is much less likely than it was, so that it does not diverge.
Formula: minimize forget_weight * mean over forget rows of -(2 / beta) * log sigmoid(-beta * (log p(row) - log p_original(row)))
    + retain_weight * mean loss of the rows to keep; log-probabilities are summed over the row's tokens.
Source: Zhang et al. 2024; not part of the TinyMem paper.
Cost: epochs * 2 * forget rows forward and backward passes, and one forward pass of the original.
Options: epochs, learning_rate, weight_decay, batch_size, over, forget_weight, retain_weight, beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import Batch, RetainConfig, descend, retain_loss, summed
from tinymem.mitigation.methods.pieces import rows_at_once
from tinymem.mitigation.option_ranges import check_above


@dataclass(frozen=True, kw_only=True)
class NPOConfig(RetainConfig):
    """Options of NPO (negative preference optimization)."""

    epochs: int = 4
    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, beta=0)


@editor("npo", config=NPOConfig, properties=Properties(unit="model", order="first", criterion="optimization", dual_objective=True))
def npo(model: nn.Module, data: MitigationData, config: NPOConfig) -> nn.Module:
    """The model after some steps on both terms."""
    with torch.no_grad():
        rows = rows_at_once(model, data.forget.ids.shape[1], gradients=False) or config.batch_size
        parts = data.forget.batches(min(rows, config.batch_size))
        original_N = torch.cat([-summed(model, rows, config.over)[0] for rows in parts])

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        log_ratio_B = -summed(edited, batch.forget, config.over)[0] - original_N[batch.index]
        lowered = npo_loss(log_ratio_B, config.beta, len(batch.whole.forget))
        return config.forget_weight * lowered + config.retain_weight * retain_loss(edited, batch)

    return descend(model, data, config, objective)


def npo_loss(log_ratio_B: Tensor, beta: float, rows: int) -> Tensor:
    """Sum of -(2 / beta) * log sigmoid(-beta * log ratio), over the number of rows of the whole batch."""
    return -(2 / beta) * (F.logsigmoid(-beta * log_ratio_B).sum() / rows)
