"""Random neurons: zero neurons drawn at random, the control that every neuron method has to beat.

Formula: score = independent uniform draws from the seed.
Source: Chang et al. 2024, section 3 ("Random").
Cost: none.
Options: ratio, of, scope (per layer), skip_bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.neuron._common import NeuronConfig, as_scores, row_generators, width
from tinymem.models.adapters import neuron_layers


@dataclass(frozen=True, kw_only=True)
class RandomNeuronsConfig(NeuronConfig):
    """Options of the control. The grid is that of Act, Zero and IG."""

    grid: ClassVar[Grid] = grids.NEURON


def by_row(model: nn.Module, data: MitigationData, config: RandomNeuronsConfig) -> Tensor:
    """Uniform scores [S, L, F], drawn apart for each row."""
    layers = neuron_layers(model)
    draws = [torch.rand(len(layers), width(layers), generator=stream) for stream in row_generators(data.forget, data.seed)]
    return torch.stack(draws).to(data.forget.ids.device)


@scorer("random-neurons", config=RandomNeuronsConfig, properties=Properties(unit="neuron", order="zeroth"), by_row=by_row)
def random_neurons(model: nn.Module, data: MitigationData, config: RandomNeuronsConfig) -> Scores:
    """Uniform random scores [neurons] per layer."""
    layers = neuron_layers(model)
    return as_scores(model, torch.rand(len(layers), width(layers), generator=data.generator()).to(data.forget.ids.device), config)
