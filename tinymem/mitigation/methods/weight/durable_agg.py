"""Durable-agg: zero the weights of the whole model whose gradients on the memorized rows are largest.

Idea: as Durable, but the layers compete for the K weights.
Formula: score = |d/dw sum over forget rows of the row's mean loss|; the top K of all feed-forward parameters are zeroed.
Source: TinyMem paper, section 3.3, Algorithm 3. The paper's K is a share of all parameters (`of: model`).
Cost: one forward and backward pass over the forget rows.
Options: ratio, of, scope, over, batch_size. Eligible: weights and biases of the feed-forward blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tinymem.mitigation.ablation import Scope, Scores
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.weight.durable import DurableConfig, durable


@dataclass(frozen=True, kw_only=True)
class DurableAggConfig(DurableConfig):
    """Options of Durable-agg. The grid is Durable's."""

    scope: Scope = "model"


@scorer("durable-agg", config=DurableAggConfig, properties=Properties(unit="weight", order="first"))
def durable_agg(model: nn.Module, data: MitigationData, config: DurableAggConfig) -> Scores:
    """Absolute accumulated gradients of the feed-forward parameters."""
    return durable(model, data, config)
