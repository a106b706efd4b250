"""The loss around a model, on a plane through it (Li et al. 2018, the paper's Figure 4 and appendix A.5).

Two random directions d1, d2 span the plane; the loss is measured at theta + a d1 + b d2 for a and b from -span to span. A network may
have large weights in one filter and small ones in the next without computing anything else, so a step means something only relative to
them: each direction is *filter-normalized*, every filter d_f scaled to the norm of the model's filter theta_f,

    d_f  <-  d_f / |d_f| * |theta_f|

A filter is the weights of one output of a linear layer, or the embedding of one token. Parameters that are vectors (biases, layer norms)
stay as they are, as in Li et al. Directions depend on the seed and the shapes only: two models of one architecture are seen along the
same draws, each scaled to its own weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.evaluation.perplexity import loss_sum
from tinymem.models.adapters import logits
from tinymem.models.copied import copied
from tinymem.runtime.progress import Bar, SilentBar

Set = tuple[Tensor, Tensor]
"""Rows [N, T] of token ids, and which tokens are scored [N, T]."""


@dataclass(frozen=True)
class Landscape:
    """Mean loss in nats per scored token on a grid.

    Attributes:
        coordinates: the steps along each direction, the same for both.
        losses: `losses[i][j]` is at b = coordinates[i], a = coordinates[j]; None where it overflows.
    """

    coordinates: list[float]
    losses: list[list[float | None]]

    @property
    def center(self) -> float | None:
        """Loss of the unperturbed model, at the grid's middle."""
        middle = len(self.coordinates) // 2
        return self.losses[middle][middle]


@torch.no_grad()
def landscape(
    model: nn.Module,
    sets: Sequence[Set],
    *,
    steps: int = 21,
    span: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    bar: Bar | None = None,
) -> Landscape:
    """Measure a model on a grid of `steps` x `steps` points; the model itself is in the middle and is left as it was.

    Args:
        model: any causal language model.
        sets: rows of the loss, on the model's device, with their scored tokens, of any number of lengths.
        steps: points per direction, odd, so that the model is one of them.
        span: largest step along a direction; at 1 the change of a filter is as long as the filter.
        seed: of the directions.
        batch_size: rows per forward pass.
        bar: advances by `steps` * `steps` in all.

    Raises:
        UserError: an even or too small number of steps, or no scored token.
    """
    if steps < 3 or steps % 2 == 0:
        raise UserError(f"expected an odd number of steps of at least 3, got {steps}; try 21")
    if not span > 0 or not math.isfinite(span):
        raise UserError(f"expected a positive span, got {span:g}; try 1")
    moved = copied(model).eval()
    parameters = list(moved.parameters())
    origin = [p.clone() for p in parameters]
    one, two = (filter_normalized(model, seed, which) for which in (1, 2))
    coordinates = [span * (2 * i / (steps - 1) - 1) for i in range(steps)]
    losses: list[list[float | None]] = []
    for b in coordinates:
        losses.append([])
        for a in coordinates:
            for p, p0, d1, d2 in zip(parameters, origin, one, two, strict=True):
                p.copy_(p0 + a * d1 + b * d2)
            losses[-1].append(mean_loss(moved, sets, batch_size))
            (bar or SilentBar()).advance(1)
    return Landscape(coordinates, losses)


def mean_loss(model: nn.Module, sets: Sequence[Set], batch_size: int) -> float | None:
    """Summed loss of the scored tokens by their number; None where it overflows.

    Raises:
        UserError: no token is scored.
    """
    total, tokens = 0.0, 0
    for ids_NT, scored_NT in sets:
        for ids_BT, scored_BT in zip(ids_NT.split(batch_size), scored_NT.split(batch_size), strict=True):
            total += float(loss_sum(logits(model, ids_BT), ids_BT, scored_BT))
        tokens += int(scored_NT[:, 1:].sum())
    if not tokens:
        raise UserError("expected rows with scored tokens, got none; name other rows")
    return total / tokens if math.isfinite(total) else None


def filter_normalized(model: nn.Module, seed: int, which: int) -> list[Tensor]:
    """A random direction, one tensor per parameter and of its shape, each filter as long as the model's; zero for vectors."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + which)
    transposed = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}  # transformers' GPT-2 keeps [in, out]
    return [_normalized(p.detach(), generator, 0 if id(p) in transposed else 1) for p in model.parameters()]


def _normalized(parameter: Tensor, generator: torch.Generator, inputs: int) -> Tensor:
    """A random direction of the parameter's shape, each filter (over the dimension `inputs`) as long as the parameter's."""
    direction = torch.randn(parameter.shape, generator=generator).to(parameter)  # drawn on the CPU: the same on every device
    if parameter.dim() < 2:
        return torch.zeros_like(parameter)
    length = direction.norm(dim=inputs, keepdim=True).clamp_min(1e-12)
    return direction / length * parameter.norm(dim=inputs, keepdim=True)
