"""Greedy: zero one weight at a time, each time the one whose removal helps most.

Idea: after each removal the gradients are taken anew, on another batch, so that removals account for one another.
Formula: per batch L = sum of the mean losses of its retain rows - that of its forget rows; zero the weight with the largest w * dL/dw
    (removal lowers L by that, to first order). `criterion: gradient` is Algorithm 1's |dL/dw|.
Source: Maini et al. 2023; TinyMem paper, section 3.3, Algorithm 1. The published code uses the signed product, and counts K over all
    parameters (`of: model`); its retain rows held the memorized ones too. Most of its shuffled batches hold no
    forget row (`sampler: balanced` fills half of each).
Cost: one forward and backward pass over a batch per step. The order of removal serves all smaller ratios.
Options: ratio, of, scope (whole model), criterion, sampler, per_step (weights zeroed a step; exact with 1), batch_size. Eligible: weights
    and biases of the feed-forward blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import concatenate
from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import AblationConfig, Scope, Scores, group_counts
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.replay import Replayed
from tinymem.mitigation.methods.substitute import Substituted, constants
from tinymem.mitigation.methods.weight._batches import Sampler, batches
from tinymem.models.adapters import mlp_parameters


@dataclass(frozen=True, kw_only=True)
class GreedyConfig(AblationConfig):
    """Options of Greedy. The grid is that of the paper's A.3.5."""

    ratio: float = 0.001
    scope: Scope = "model"
    criterion: Literal["product", "gradient"] = "product"
    sampler: Sampler = "shuffled"
    per_step: int = 1
    batch_size: int = 64

    grid: ClassVar[Grid] = grids.GREEDY

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope != "model":
            raise UserError(f"expected scope 'model', got '{self.scope}': Greedy removes one weight of the whole model a step")


def steps(model: nn.Module, config: GreedyConfig) -> int:
    """Steps at the configured ratio; the first steps of a run at a larger ratio are the same (sweeps rely on that).

    Raises:
        UserError: as `group_counts`.
    """
    return -(-_count(model, config) // config.per_step)


@scorer(
    "greedy", config=GreedyConfig, properties=Properties(unit="weight", order="first", iterative=True, dual_objective=True), steps=steps
)
def greedy(model: nn.Module, data: MitigationData, config: GreedyConfig) -> Scores:
    """Scores that fall in the order of removal, up to the configured ratio; 0 for weights that stay."""
    parameters = {name: p.detach() for name, p in mlp_parameters(model).items()}
    count = _count(model, config)
    removal = _Removal(model, parameters, data, config, count)
    data.bar.expect(steps(model, config))
    step = Replayed(removal.step, model, steps=count // config.per_step)
    draws = _forever(data, config)
    for _ in range(count // config.per_step):
        step(next(draws))
        data.bar.advance(1)
    if count % config.per_step:
        removal.step(next(draws).to(removal.flat.device), count % config.per_step)
    sizes = [p.numel() for p in parameters.values()]
    parts = zip(parameters.items(), removal.scores.split(sizes), strict=True)
    return Scores("weight", {name: part.view_as(p) for (name, p), part in parts})


def _count(model: nn.Module, config: GreedyConfig) -> int:
    ((_, count),) = group_counts(model, {name: p.numel() for name, p in mlp_parameters(model).items()}, config)
    return count


class _Removal:
    """The feed-forward parameters as one flat tensor that loses weights step by step, on the device."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor], data: MitigationData, config: GreedyConfig, count: int) -> None:
        self.model, self.parameters, self.config = model, parameters, config
        self.constants = constants(model, parameters)
        self.flat = torch.cat([p.flatten() for p in parameters.values()]).requires_grad_()
        self.scores = torch.zeros_like(self.flat, dtype=torch.float32)
        self.left = torch.full((), float(count), device=self.flat.device)
        self.rows = concatenate([data.forget, data.retain])
        self.signs = torch.where(torch.arange(len(self.rows), device=self.flat.device) < len(data.forget), -1.0, 1.0)

    def step(self, index: Tensor, weights: int | None = None) -> None:
        """Remove the weights (`per_step` of them) that the rows of `index` point to."""
        gradient = self._gradient(index)
        with torch.no_grad():
            value = (gradient * self.flat if self.config.criterion == "product" else gradient.abs()).float()
            value.masked_fill_(self.scores > 0, float("-inf"))
            chosen = value.topk(weights or self.config.per_step).indices
            places = self.left - torch.arange(len(chosen), device=chosen.device)
            self.scores.index_copy_(0, chosen, places)
            self.flat.index_fill_(0, chosen, 0)
            self.left -= len(chosen)

    def _gradient(self, index: Tensor) -> Tensor:
        parts = self.flat.split([p.numel() for p in self.parameters.values()])
        weights = {name: part.view_as(p) for (name, p), part in zip(self.parameters.items(), parts, strict=True)}
        losses_B = row_losses(Substituted(self.model, {**self.constants, **weights}), self.rows.take(index))
        return torch.autograd.grad((losses_B * self.signs[index]).sum(), self.flat)[0]


def _forever(data: MitigationData, config: GreedyConfig) -> Iterator[Tensor]:
    generator = data.generator()
    while True:
        yield from batches(len(data.forget), len(data.retain), config.sampler, config.batch_size, generator)
