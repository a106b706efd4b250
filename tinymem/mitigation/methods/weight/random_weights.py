"""Random weights: zero weights drawn at random, the control that every weight method has to beat.

Formula: score = independent uniform draws from the seed.
Source: none; a control.
Cost: none.
Options: ratio, of, scope (per layer). Eligible: weights and biases of the feed-forward blocks.
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
from tinymem.models.adapters import mlp_parameters


@dataclass(frozen=True, kw_only=True)
class RandomWeightsConfig(AblationConfig):
    """Options of the control. The grid is Durable's."""

    grid: ClassVar[Grid] = grids.WEIGHT


@scorer("random-weights", config=RandomWeightsConfig, properties=Properties(unit="weight", order="zeroth"))
def random_weights(model: nn.Module, data: MitigationData, config: RandomWeightsConfig) -> Scores:
    """Uniform random scores of the feed-forward parameters."""
    generator = data.generator()
    return Scores("weight", {n: torch.rand(p.shape, generator=generator).to(p.device) for n, p in mlp_parameters(model).items()})
