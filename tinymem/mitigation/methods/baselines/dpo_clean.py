"""DPO on clean counterparts: prefer each row's clean version to the memorized one (ParaPO, with exact counterparts as paraphrases).

Idea: the model is told what to say instead, which negative preference alone does not tell. It needs the rows and their clean versions.
Formula: minimize the mean over forget rows of -log sigmoid(beta * ((log p(clean) - log p_original(clean)) - (log p(row) -
    log p_original(row)))); log-probabilities are summed over the tokens after each row's own prompt (`over`: `row`, over all).
Source: Rafailov et al. 2023; Chen et al. 2025 (arXiv 2504.14452: beta 0.1, rate 5e-7 for models of billions of weights, one epoch); not
    part of the TinyMem paper.
Cost: epochs * 2 * forget rows forward and backward passes, and a forward pass of the original over both.
Options: epochs, learning_rate, weight_decay, batch_size, over, beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import BaselineConfig, Batch, descend, summed
from tinymem.mitigation.methods.pieces import rows_at_once
from tinymem.mitigation.option_ranges import check_above

PROPERTIES = Properties(unit="model", order="first", criterion="optimization")


@dataclass(frozen=True, kw_only=True)
class DPOCleanConfig(BaselineConfig):
    """Options of DPO on clean counterparts."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, beta=0)


@editor("dpo-clean", config=DPOCleanConfig, properties=PROPERTIES, by_name=True)
def dpo_clean(model: nn.Module, data: MitigationData, config: DPOCleanConfig) -> nn.Module:
    """The model after some steps towards the clean versions; rows whose artifact has none are left out.

    Raises:
        UserError: no forget row has a clean counterpart.
    """
    data, clean = pairs(data)
    with torch.no_grad():
        original_N = torch.cat([_margin(model, r, c, config) for r, c in _parts(model, data.forget, clean, config)])

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        gained_B = _margin(edited, batch.forget, clean.take(batch.index), config) - original_N[batch.index]
        return dpo_loss(gained_B, config.beta, len(batch.whole.forget))

    return descend(model, data, config, objective)


def pairs(data: MitigationData) -> tuple[MitigationData, Rows]:
    """The data with only those forget rows that have a clean counterpart, and these counterparts, row for row."""
    if data.twins is None:
        raise UserError("expected clean counterparts of the rows to forget, got none; use a model with its corpus, or npo")
    differ = (data.twins.ids != data.forget.ids).any(1).nonzero()[:, 0]
    if not len(differ):
        raise UserError("expected rows to forget that have clean counterparts, got none: these artifacts have none; use npo")
    return data.with_forget(differ), data.twins.take(differ)


def _parts(model: nn.Module, rows: Rows, clean: Rows, config: DPOCleanConfig) -> list[tuple[Rows, Rows]]:
    size = min(rows_at_once(model, rows.ids.shape[1], gradients=False) or config.batch_size, config.batch_size)
    return [*zip(rows.batches(size), clean.batches(size), strict=True)]


def _margin(model: nn.Module, rows: Rows, clean: Rows, config: DPOCleanConfig) -> Tensor:
    """Log-probability [B] of the clean versions less that of the rows, in nats."""
    return summed(model, rows, config.over)[0] - summed(model, clean, config.over)[0]


def dpo_loss(gained_B: Tensor, beta: float, rows: int) -> Tensor:
    """Sum of -log sigmoid(beta * what the margin gained over the original's), over the number of rows of the whole batch."""
    return -F.logsigmoid(beta * gained_B).sum() / rows
