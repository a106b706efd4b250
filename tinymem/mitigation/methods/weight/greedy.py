"""Greedy: zero one weight at a time, each time the one whose removal helps most.

Idea: after each removal the gradients are taken anew, on another batch, so that removals account for one another.
Formula: per batch L = sum of the mean losses of its retain rows - that of its forget rows; zero the weight with the largest w * dL/dw
    (removal lowers L by that, to first order). `criterion: gradient` is Algorithm 1's |dL/dw|.
Source: Maini et al. 2023; TinyMem paper, section 3.3, Algorithm 1. The published code uses the signed product, and counts K over all
    parameters (`of: model`); its retain rows held the memorized ones too. Most of its shuffled batches hold no
    forget row (`sampler: balanced` fills half of each).
Cost: one forward and backward pass over a batch per step. The order of removal serves all smaller ratios.
Options: ratio, of, scope (whole model), criterion, sampler, per_step (weights zeroed a step; exact with 1; `auto`: one for each 2^26
    eligible ones, so 1 for models of up to some 200 million parameters, 25 for Pythia-2.8B, 64 for 6.9B), batch_size. Eligible: weights
    and biases of the feed-forward blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
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
from tinymem.mitigation.methods.pieces import add_gradients, beside_scores
from tinymem.mitigation.methods.replay import Replayed
from tinymem.mitigation.methods.substitute import Substituted, constants
from tinymem.mitigation.methods.weight._batches import Sampler, batches
from tinymem.models.adapters import mlp_parameters

PART = A_WEIGHT = 2**26
"""Eligible weights whose gradients are ranked together, and for each of which `auto` zeroes one a step."""
CHUNK, MANY = 4096, 2**22
"""Values that share a maximum; of so many values the maxima are looked at first."""


@dataclass(frozen=True, kw_only=True)
class GreedyConfig(AblationConfig):
    """Options of Greedy. The grid is that of the paper's A.3.5."""

    ratio: float = 0.001
    scope: Scope = "model"
    criterion: Literal["product", "gradient"] = "product"
    sampler: Sampler = "shuffled"
    per_step: int | Literal["auto"] = 1
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
    return -(-_count(model, config) // weights_a_step(model, config))


def weights_a_step(model: nn.Module, config: GreedyConfig) -> int:
    """Weights that a step zeroes: the option, or one for each `A_WEIGHT` eligible ones."""
    if config.per_step != "auto":
        return config.per_step
    return max(1, sum(p.numel() for p in mlp_parameters(model).values()) // A_WEIGHT)


@scorer(
    "greedy", config=GreedyConfig, properties=Properties(unit="weight", order="first", iterative=True, dual_objective=True), steps=steps
)
def greedy(model: nn.Module, data: MitigationData, config: GreedyConfig) -> Scores:
    """Scores that fall in the order of removal, up to the configured ratio; 0 for weights that stay."""
    parameters = {name: p.detach() for name, p in mlp_parameters(model).items()}
    count, weights = _count(model, config), weights_a_step(model, config)
    if config.per_step == "auto":
        data.found["per_step"] = weights
    removal = _Removal(model, parameters, data, config, count)
    data.bar.expect(-(-count // weights))
    step = Replayed(lambda index: removal.step(index, weights), model, steps=count // weights)
    draws = _forever(data, config)
    for _ in range(count // weights):
        step(next(draws))
        data.bar.advance(1)
    if count % weights:
        removal.step(next(draws).to(removal.device), count % weights)
    return Scores("weight", removal.by_name())


def _count(model: nn.Module, config: GreedyConfig) -> int:
    ((_, count),) = group_counts(model, {name: p.numel() for name, p in mlp_parameters(model).items()}, config)
    return count


class _Removal:
    """The feed-forward parameters as flat tensors that lose weights step by step, on their device: one, of a large model some."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor], data: MitigationData, config: GreedyConfig, count: int) -> None:
        self.model, self.config = model, config
        self.parts = list(_parts(parameters))
        self.constants = constants(model, parameters)
        self.flat = [torch.cat([p.flatten() for p in part.values()]).requires_grad_() for part in self.parts]
        self.removed = [torch.zeros_like(flat, dtype=torch.bool) for flat in self.flat]
        self.starts = [0, *accumulate(len(flat) for flat in self.flat[:-1])]
        self.rows = concatenate([data.forget, data.retain])
        self.device = self.rows.ids.device
        self.order = torch.zeros(count, dtype=torch.long, device=self.device)  # places in all parts, one after the other
        self.taken = torch.zeros((), dtype=torch.long, device=self.device)
        self.signs = torch.where(torch.arange(len(self.rows), device=self.device) < len(data.forget), -1.0, 1.0)
        self.pieces = beside_scores(model, self.rows.ids.shape[1], a_weight=5)  # fp32 gradients, and whether it is removed

    def step(self, index: Tensor, weights: int) -> None:
        """Remove so many weights: those that the rows of `index` point to."""
        gradients = self._gradients(index)
        with torch.no_grad():
            found = [self._highest(k, gradients.pop(str(k)), weights) for k in range(len(self.parts))]
            best = torch.cat([values.to(self.device) for values, _ in found]).argsort(descending=True, stable=True)[:weights]
            chosen = torch.zeros(sum(len(at) for _, at in found), dtype=torch.bool, device=self.device)
            chosen.index_fill_(0, best, True)
            for (_, at), now, flat, removed in zip(found, chosen.split([len(at) for _, at in found]), self.flat, self.removed, strict=True):
                removed[at] |= now.to(flat.device)
                flat[at] = torch.where(removed[at], 0, flat[at])
            places = torch.cat([at.to(self.device) + start for (_, at), start in zip(found, self.starts, strict=True)])
            self.order[self.taken + torch.arange(len(best), device=self.device)] = places[best]
            self.taken += len(best)

    def by_name(self) -> dict[str, Tensor]:
        """Scores by the parameters' names, in their shapes: how many weights were still to go when it went, itself among them; or 0."""
        found: dict[str, Tensor] = {}
        left = torch.arange(len(self.order), 0, -1, dtype=torch.float32, device=self.device)
        for part, removed, start in zip(self.parts, self.removed, self.starts, strict=True):
            here = (self.order >= start) & (self.order < start + len(removed))
            scores = torch.zeros(len(removed), device=removed.device)
            scores[(self.order[here] - start).to(scores.device)] = left[here].to(scores.device)
            found |= _split(scores, part)
        return found

    def _highest(self, k: int, gradient: Tensor, weights: int) -> tuple[Tensor, Tensor]:
        """The highest values of a part, and their places in it."""
        value = gradient.mul_(self.flat[k]) if self.config.criterion == "product" else gradient.abs_()
        value.masked_fill_(self.removed[k], float("-inf"))
        return highest_of(value.float(), min(weights, len(value)))

    def _gradients(self, index: Tensor) -> dict[str, Tensor]:
        """Gradients of the parts by their number, at least in fp32."""
        weights = dict(self.constants)
        for flat, part in zip(self.flat, self.parts, strict=True):
            weights |= _split(flat, part)
        model, totals = Substituted(self.model, weights), dict[str, Tensor]()

        def share(at: Tensor) -> Tensor:
            losses_B = row_losses(model, self.rows.take(at))
            return (losses_B * self.signs[at].to(losses_B.device)).sum()

        def add(name: str, gradient: Tensor) -> None:
            whole = totals.get(name)
            totals[name] = gradient.to(torch.promote_types(gradient.dtype, torch.float32)) if whole is None else whole.add_(gradient)

        add_gradients(self.pieces, index, share, {str(k): flat for k, flat in enumerate(self.flat)}, add)
        return totals


def highest_of(value_n: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest values, and their places: of many values in one pass, since all lie in the chunks with the highest maxima."""
    chunks = len(value_n) // CHUNK
    if len(value_n) < MANY or chunks <= count:
        return value_n.topk(count)
    among_c = value_n[: chunks * CHUNK].view(chunks, CHUNK).amax(1).topk(count).indices
    at_m = (among_c[:, None] * CHUNK + torch.arange(CHUNK, device=value_n.device)).flatten()
    at_m = torch.cat([at_m, torch.arange(chunks * CHUNK, len(value_n), device=value_n.device)])
    values, place = value_n[at_m].topk(count)
    return values, at_m[place]


def _parts(parameters: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Consecutive parameters of one device, as many together as `PART` entries hold."""
    part: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        together = {p.device for p in part.values()} <= {parameter.device}
        if part and not (together and sum(p.numel() for p in part.values()) + parameter.numel() <= PART):
            yield part
            part = {}
        part[name] = parameter
    yield part


def _split(flat: Tensor, part: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pieces of a flat tensor by name, each of its parameter's shape: views."""
    pieces = flat.split([p.numel() for p in part.values()])
    return {name: piece.view_as(p) for (name, p), piece in zip(part.items(), pieces, strict=True)}


def _forever(data: MitigationData, config: GreedyConfig) -> Iterator[Tensor]:
    generator = data.generator()
    while True:
        yield from batches(len(data.forget), len(data.retain), config.sampler, config.batch_size, generator)
