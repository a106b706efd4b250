"""Random weights: zero weights drawn at random, the control that every weight method has to beat.

Formula: score = independent uniform draws, a stream for each tensor from seed and name, in the published layout.
Source: none; a control.
Cost: none.
Options: ratio, of, scope (per layer). Eligible: weights and biases of the feed-forward blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.weight._draws import uniform
from tinymem.models.adapters import mlp_parameters


@dataclass(frozen=True, kw_only=True)
class RandomWeightsConfig(AblationConfig):
    """Options of the control. The grid is Durable's."""

    grid: ClassVar[Grid] = grids.WEIGHT


@scorer("random-weights", config=RandomWeightsConfig, properties=Properties(unit="weight", order="zeroth"))
def random_weights(model: nn.Module, data: MitigationData, config: RandomWeightsConfig) -> Scores:
    """Uniform random scores of the feed-forward parameters."""
    return Scores("weight", uniform(model, mlp_parameters(model), data.seed))
