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
from tinymem.mitigation.methods.weight._selection import use_kernel
from tinymem.models.adapters import mlp_parameters

Criterion = Literal["product", "gradient"]
PART = 2**26
"""Eligible weights whose gradients are ranked together."""
CHUNK, MANY = 4096, 2**22
"""Values that share a maximum; of so many values the maxima are looked at first."""


@dataclass(frozen=True, kw_only=True)
class GreedyConfig(AblationConfig):
    """Options of Greedy. The grid is that of the paper's A.3.5."""

    ratio: float = 0.001
    scope: Scope = "model"
    criterion: Criterion = "product"
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
    """Weights that a step zeroes: the option, or one for each `grids.WEIGHTS_A_STEP` eligible ones."""
    if config.per_step != "auto":
        return config.per_step
    return max(1, sum(p.numel() for p in mlp_parameters(model).values()) // grids.WEIGHTS_A_STEP)


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
        self.flat = [torch.cat([p.flatten() for p in part.values()]) for part in self.parts]
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
            found = [self._highest(k, gradients[k], weights) for k in range(len(self.parts))]
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
        return highest_of(gradient, self.flat[k], self.removed[k], min(weights, len(gradient)), self.config.criterion)

    def _gradients(self, index: Tensor) -> list[Tensor]:
        """Gradients of the parts, at least in fp32."""
        totals = [torch.empty_like(flat, dtype=torch.promote_types(flat.dtype, torch.float32)) for flat in self.flat]
        # each parameter a leaf of its own, so that its gradient comes as soon as it is known, and no two are held at once
        leaves, sums = dict[str, Tensor](), dict[str, Tensor]()
        for flat, total, part in zip(self.flat, totals, self.parts, strict=True):
            leaves |= {name: piece.detach().requires_grad_() for name, piece in _split(flat, part).items()}
            sums |= _split(total, part)
        model, started = Substituted(self.model, {**self.constants, **leaves}), set[str]()

        def share(at: Tensor) -> Tensor:
            losses_B = row_losses(model, self.rows.take(at))
            return (losses_B * self.signs[at].to(losses_B.device)).sum()

        def add(name: str, gradient: Tensor) -> None:
            if name in started:
                sums[name].add_(gradient)
            else:
                sums[name].copy_(gradient)
            started.add(name)

        add_gradients(self.pieces, index, share, leaves, add)
        for name in sums.keys() - started:
            sums[name].zero_()
        return totals


def highest_of(
    gradient_n: Tensor, weight_n: Tensor, removed_n: Tensor, count: int, criterion: Criterion = "product"
) -> tuple[Tensor, Tensor]:
    """The `count` highest values, and their places: of many weights in one pass, since all lie in the chunks with the highest maxima."""
    chunks, tensors = len(gradient_n) // CHUNK, (gradient_n, weight_n, removed_n)
    if len(gradient_n) < MANY or chunks <= count:
        return _values(*tensors, criterion).topk(count)
    maxima_c = _maxima(*tensors, criterion)
    at_m = (maxima_c.topk(count).indices[:, None] * CHUNK + torch.arange(CHUNK, device=gradient_n.device)).flatten()
    at_m = torch.cat([at_m, torch.arange(chunks * CHUNK, len(gradient_n), device=gradient_n.device)])
    values, place = _values(gradient_n[at_m], weight_n[at_m], removed_n[at_m], criterion).topk(count)
    return values, at_m[place]


def _values(gradient_n: Tensor, weight_n: Tensor, removed_n: Tensor, criterion: Criterion) -> Tensor:
    """What the criterion says of each weight, in fp32; minus infinity of those that are removed."""
    value_n = gradient_n * weight_n if criterion == "product" else gradient_n.abs()
    return value_n.masked_fill_(removed_n, float("-inf")).float()


def _maxima(gradient_n: Tensor, weight_n: Tensor, removed_n: Tensor, criterion: Criterion) -> Tensor:
    """The highest value of each whole chunk."""
    if use_kernel(gradient_n):
        from tinymem.mitigation.methods.weight._maxima_kernel import maxima

        return maxima(gradient_n, weight_n, removed_n, CHUNK, product=criterion == "product")
    whole = len(gradient_n) // CHUNK * CHUNK
    return _values(gradient_n[:whole], weight_n[:whole], removed_n[:whole], criterion).view(-1, CHUNK).amax(1)


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
