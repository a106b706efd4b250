"""A mask over feed-forward matrices that is learned with a straight-through gradient (Ramanujan et al. 2020).

Each weight has a score s. Forward: exactly K weights of each group, those with the highest |s|, are dropped. Backward: the hard choice
is treated as if it were |s| itself, so that the gradient of |s| is minus that of the kept share of the weight: scores grow where dropping
lowers the objective. `drop="lowest"` is the published code's reading: |s| says how much to keep a weight, and the gradient's sign follows.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tinymem.mitigation.frame import AblationConfig, group_counts
from tinymem.mitigation.unlearning._substitute import Substituted
from tinymem.models.adapters import family_of, mlp_parameters

Drop = Literal["highest", "lowest"]


@dataclass(frozen=True, kw_only=True)
class LearnedMaskConfig(AblationConfig):
    """Options that Subnet and BalancedSubnet share.

    Attributes:
        epochs: passes over the rows.
        drop: whether the weights with the highest or the lowest |score| are dropped.
        learning_rate, momentum, weight_decay: of the SGD that trains the scores (published values).
    """

    scope: Literal["tensor", "layer", "model"] = "tensor"
    epochs: int = 1
    drop: Drop = "highest"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64


class LearnedMask:
    """Scores of the feed-forward matrices of a model, and the weights that they leave."""

    def __init__(self, model: nn.Module, config: LearnedMaskConfig, generator: torch.Generator) -> None:
        self.model, self.sign = model, 1.0 if config.drop == "highest" else -1.0
        self.weights = {name: p.detach() for name, p in mlp_parameters(model, matrices_only=True).items()}
        self.groups = group_counts(model, {name: w.numel() for name, w in self.weights.items()}, config)
        transposed = family_of(model).transposed
        self.scores = {name: _kaiming(w, transposed, generator).requires_grad_() for name, w in self.weights.items()}
        self.optimizer = torch.optim.SGD(
            list(self.scores.values()), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )

    @torch.no_grad()
    def dropped(self) -> dict[str, Tensor]:
        """1 where a weight is dropped, else 0; exactly the configured number of ones."""
        drops = {}
        for names, count in self.groups:
            flat = torch.cat([self.sign * self.scores[n].abs().flatten() for n in names])
            drop = torch.zeros_like(flat)
            drop.index_fill_(0, flat.topk(count).indices, 1)
            for name, part in zip(names, drop.split([self.scores[n].numel() for n in names]), strict=True):
                drops[name] = part.view_as(self.scores[name])
        return drops

    def masked(self) -> Substituted:
        """The model under the current mask; gradients of its outputs reach the scores."""
        weights = {}
        for name, drop in self.dropped().items():
            surrogate = self.sign * self.scores[name].abs()
            kept = 1 - (drop + surrogate - surrogate.detach())
            weights[name] = self.weights[name] * kept.to(self.weights[name].dtype)
        return Substituted(self.model, weights)

    def step(self, objective: Tensor) -> None:
        """Lower the objective by one step of the scores; the model's own weights stay as they are."""
        gradients = torch.autograd.grad(objective, list(self.scores.values()))
        for score, gradient in zip(self.scores.values(), gradients, strict=True):
            score.grad = gradient
        self.optimizer.step()

    def edited(self) -> nn.Module:
        """A copy of the model without the dropped weights."""
        edited = deepcopy(self.model)
        parameters = dict(edited.named_parameters())
        with torch.no_grad():
            for name, drop in self.dropped().items():
                parameters[name].masked_fill_(drop.bool(), 0)
        return edited


def _kaiming(weight: Tensor, transposed: bool, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform scores with a = sqrt(5), as torch initialises linear layers: U(-1, 1) / sqrt(inputs)."""
    inputs = weight.shape[0] if transposed else weight.shape[1]
    uniform = torch.rand(weight.shape, generator=generator) * 2 - 1
    return (uniform / math.sqrt(inputs)).to(weight.device)
