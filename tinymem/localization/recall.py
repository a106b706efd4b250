"""Recall of a scorer that is asked where a sequence was injected (Chang et al. 2024, equation 1 and Tables 3 and 6).

Shape suffixes: S sequences, L layers, F neurons of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Scope = Literal["layer", "model"]
TensorScope = Literal["tensor", "layer", "model"]
"""Where scores of weights are compared; of neurons a layer has one tensor."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Recall:
    """Mean recall over the sequences, with what a random choice would have, in [0, 1]."""

    values_S: Tensor
    chance: float

    @property
    def mean(self) -> float:
        """Mean over the sequences."""
        return float(self.values_S.double().mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean, over sequences."""
        return bootstrap(self.values_S)


def recall(scores_SLF: Tensor, gold_SLF: Tensor, top: float, scope: Scope) -> Recall:
    """Share of each sequence's injected neurons (summed over layers) among the highest scores.

    Args:
        scores_SLF: larger = more likely to hold the sequence; ties go to the earlier neuron.
        gold_SLF: mask of the injected neurons.
        top: share of the neurons that are chosen.
        scope: `layer` takes round(F * top) of each layer, `model` int(L * F * top) of them all (the paper's Table 6).
    """
    chosen_SLF = highest(scores_SLF, top, scope)
    values_S = (chosen_SLF & gold_SLF).flatten(1).sum(1) / gold_SLF.flatten(1).sum(1)
    return Recall(values_S, float(chosen_SLF[0].float().mean()))


def highest(scores_SLF: Tensor, top: float, scope: Scope) -> Tensor:
    """Mask [S, L, F] of the highest scores; see `recall`."""
    flat = scores_SLF if scope == "layer" else scores_SLF.flatten(1)[:, None]
    count = round(flat.shape[-1] * top) if scope == "layer" else int(flat.shape[-1] * top + 1e-6)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen.scatter_(2, torch.sort(flat, dim=2, descending=True, stable=True).indices[..., :count], True)
    return chosen.view(scores_SLF.shape) & scored(scores_SLF)


def scored(scores_SLF: Tensor) -> Tensor:
    """Mask [S, L, 1] of the layers that a scorer gave scores: in others, where all are -inf, it names no neuron, and its edit has none."""
    return ~scores_SLF.isneginf().all(2, keepdim=True)


def bootstrap(values_S: Tensor, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean from 2,000 resamples with replacement."""
    values = values_S.double().cpu().numpy()
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)
