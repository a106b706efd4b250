"""Results of localization by layer: single numbers with their layer, and what summarizes a weight for each layer.

Shape suffixes: L blocks, M models or techniques.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinymem.runtime.json import JsonObject

TOPS = (1, 2)
"""How many of the best layers are compared with those of a control model."""


@dataclass(frozen=True)
class Finding:
    """One number of a technique.

    Attributes:
        name: what it is: `error`, `weight`, `f1`, `center`, ...
        score: the number; None where it is not defined, such as a crossing that never happens.
        layer: block, from 0; -1 for the embedding; of a window its lowest block; None for all of the model.
        window: number of consecutive blocks that were changed together.
        low: lower end of its interval.
        high: upper end.
        chance: expected score of a random choice.
        variant: what distinguishes it from the technique's main numbers, such as a norm.
    """

    name: str
    score: float | None
    layer: int | None = None
    window: int | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    variant: JsonObject = field(default_factory=dict)


def summary(weights_L: Tensor, control: Collection[int] = (), variant: JsonObject | None = None) -> list[Finding]:
    """A weight for each layer, their center of gravity, and for a control model the share of the best layers that are right."""
    weights, told, depth = weights_L.tolist(), variant or {}, len(weights_L)
    found = [Finding("weight", weight, layer, variant=told) for layer, weight in enumerate(weights)]
    center = center_of_gravity(weights)
    found.append(Finding("center", center, variant=told))
    if depth > 1:
        found.append(Finding("relative_center", None if center is None else (center - 1) / (depth - 1), variant=told))
    if control:
        chance = len(control) / depth
        found += [Finding(f"accuracy@{top}", accuracy_at(weights, control, top), chance=chance, variant=told) for top in TOPS]
    return found


def center_of_gravity(weights: Sequence[float]) -> float | None:
    """Memorization center of gravity: mean layer, counted from 1, by weight (Dankers and Titov 2024, section 4.1); None without weight.

    >>> center_of_gravity([1, 0, 1]), center_of_gravity([0, 0, 3]), center_of_gravity([0, 0])
    (2.0, 3.0, None)
    """
    total = sum(weights)
    return sum(layer * weight for layer, weight in enumerate(weights, 1)) / total if total else None


def accuracy_at(weights: Sequence[float], right: Collection[int], top: int) -> float:
    """Share of the `top` heaviest layers (from 0) that are right; of layers of one weight the lowest come first (section 3.2).

    >>> accuracy_at([0.1, 0.5, 0.4], {1, 2}, 2), accuracy_at([0.1, 0.5, 0.4], {0, 2}, 1)
    (1.0, 0.0)
    """
    best = sorted(range(len(weights)), key=lambda layer: (-weights[layer], layer))[:top]
    return sum(layer in right for layer in best) / len(best)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties given their mean rank; None for fewer than two values, or where one side is constant.

    >>> spearman([1, 2, 3], [10, 20, 15]), spearman([1, 1], [1, 2])
    (0.5, None)
    """
    ranks = torch.stack([_mean_ranks(torch.tensor(values, dtype=torch.float64)) for values in (one, other)])
    centered = ranks - ranks.mean(1, keepdim=True)
    spread = centered.norm(dim=1).prod()
    return round(float((centered[0] * centered[1]).sum() / spread), 12) if len(one) > 1 and spread > 0 else None


def scaled(weights: Sequence[float]) -> list[float]:
    """Weights brought to [0, 1] by their least and greatest (zeros where all are equal), so that those of several techniques compare."""
    low, high = min(weights), max(weights)
    return [(weight - low) / (high - low) if high > low else 0.0 for weight in weights]


def _mean_ranks(values_M: Tensor) -> Tensor:
    below = (values_M[:, None] > values_M).sum(1)
    same = (values_M[:, None] == values_M).sum(1)
    return below.double() + (same.double() + 1) / 2
