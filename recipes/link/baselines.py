"""Baselines for the link of recall and unlearning, which are no methods of the papers: size of a weight, and first-order guesses.

An injected weight is larger than others, and what is learned by heart has next to no gradient; what a score owes to either is what these
show. `magnitude` |w| looks at no row at all; `saliency` is |w * dL/dw|, the first-order change of the loss L of the forget rows' suffixes
where a weight is zeroed; `neuron-saliency` the same of a neuron, the sum over positions of -h * dL/dh, a cheap stand-in for Zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron._common import NeuronConfig, as_scores
from tinymem.models.adapters import mlp_parameters, neuron_layers

ROWS = 64


@dataclass(frozen=True, kw_only=True)
class WeightConfig(AblationConfig):
    """Options of the scores of weights: those of every ablation."""


@scorer("magnitude", config=WeightConfig, properties=Properties(unit="weight", order="zeroth"))
def magnitude(model: nn.Module, data: MitigationData, config: WeightConfig) -> Scores:
    """Absolute values of the feed-forward parameters."""
    return Scores("weight", {name: p.detach().abs() for name, p in mlp_parameters(model).items()})


@scorer("saliency", config=WeightConfig, properties=Properties(unit="weight", order="first"))
def saliency(model: nn.Module, data: MitigationData, config: WeightConfig) -> Scores:
    """Absolute products of the feed-forward parameters and their gradients, summed over the forget rows."""
    parameters = mlp_parameters(model)
    gradients = _gradients(model, data, list(parameters.values()))
    return Scores("weight", {n: (p.detach() * g).abs() for (n, p), g in zip(parameters.items(), gradients, strict=True)})


@scorer("neuron-saliency", config=NeuronConfig, properties=Properties(unit="neuron", order="first"))
def neuron_saliency(model: nn.Module, data: MitigationData, config: NeuronConfig) -> Scores:
    """First-order rise of the loss without each neuron; over positions h * dL/dh adds up to value vector times its gradient."""
    layers = neuron_layers(model)
    gradients = _gradients(model, data, [layer.weight for layer in layers])
    rises = [
        -(layer.values_FD() * (gradient if layer.transposed else gradient.T)).sum(1).detach()
        for layer, gradient in zip(layers, gradients, strict=True)
    ]
    return as_scores(model, torch.stack(rises), config)


def _gradients(model: nn.Module, data: MitigationData, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the summed suffix losses of the forget rows."""
    totals = [torch.zeros_like(p) for p in parameters]
    for rows in data.forget.batches(ROWS):
        with torch.enable_grad():
            gradients = torch.autograd.grad(row_losses(model, rows, "suffix").sum(), list(parameters))
        totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
    return totals
