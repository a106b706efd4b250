"""How far two rankings agree: Spearman's correlation with 95 % bootstrap intervals over what was sampled.

A resample in which one side is constant has no ranks, and is left out. Few scorers are resampled exhaustively: the interval then has no
random part.

Shape suffixes: B resamples, N scorers, S sequences, K strata (a model at a ratio).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from tinymem.localization.recall import RESAMPLES

EXHAUSTIVE = 6
"""Number of scorers up to which all N^N resamples are made: 46,656 of six."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho with its 95 % interval, in [-1, 1]; NaN where there is none."""

    rho: float
    low: float
    high: float


def rank_correlations(one_BN: Values, other_BN: Values) -> Values:
    """Spearman's rho [B] of each line, ties given their mean rank; NaN where one side is constant."""
    one, other = (ranks - ranks.mean(1, keepdims=True) for ranks in (_mean_ranks(one_BN), _mean_ranks(other_BN)))
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    known: Values = np.where(scale > 0, (one * other).sum(1) / np.where(scale > 0, scale, 1), math.nan)
    return known


def _mean_ranks(values_BN: Values) -> Values:
    less = (values_BN[:, None, :] < values_BN[:, :, None]).sum(2)
    equal = (values_BN[:, None, :] == values_BN[:, :, None]).sum(2)
    ranks: Values = less + (equal + 1) / 2
    return ranks


def over_scorers(one_N: Values, other_N: Values) -> Agreement:
    """Rho of two measures of the same scorers; the interval is over scorers, drawn in pairs with replacement."""
    return _within(np.asarray(one_N)[None], np.asarray(other_N)[None], pooled=False)


def within_strata(one_KN: Values, other_KN: Values) -> Agreement:
    """Mean over strata of the rho within each, of scorers that are in all; a scorer is drawn with its values in all strata."""
    return _within(one_KN, other_KN, pooled=False)


def pooled_strata(one_KN: Values, other_KN: Values) -> Agreement:
    """Rho over the values of all strata together; a scorer is drawn with its values in all strata."""
    return _within(one_KN, other_KN, pooled=True)


def _within(one_KN: Values, other_KN: Values, *, pooled: bool) -> Agreement:
    draws_BN = resamples(one_KN.shape[1])
    every_1N = np.arange(one_KN.shape[1])[None]
    point, found_B = (_rho(one_KN[:, at], other_KN[:, at], pooled=pooled) for at in (every_1N, draws_BN))
    return _interval(float(point[0]), found_B)


def _rho(one_KBN: Values, other_KBN: Values, *, pooled: bool) -> Values:
    if pooled:
        one, other = (np.moveaxis(part, 0, 1).reshape(part.shape[1], -1) for part in (one_KBN, other_KBN))
        return rank_correlations(one, other)
    by_stratum = np.stack([rank_correlations(one, other) for one, other in zip(one_KBN, other_KBN, strict=True)])
    known = ~np.isnan(by_stratum)
    mean: Values = np.where(known.any(0), np.where(known, by_stratum, 0).sum(0) / np.maximum(1, known.sum(0)), math.nan)
    return mean


def over_sequences(one_NS: Values, other_NS: Values | None, other_N: Values) -> Agreement:
    """Rho of the scorers' means; the interval is over sequences, drawn with replacement, the same ones for all scorers.

    Args:
        one_NS: of each scorer and sequence.
        other_NS: of each scorer and sequence of the other measure, drawn apart; None: only its means are known, and stay.
        other_N: the other measure's means.
    """
    draws = np.random.default_rng(0)
    one_BN = _resampled_means(one_NS, draws)
    other_BN = np.broadcast_to(other_N, one_BN.shape) if other_NS is None else _resampled_means(other_NS, draws)
    point = rank_correlations(one_NS.mean(1)[None], np.asarray(other_N, dtype=np.float64)[None])
    return _interval(float(point[0]), rank_correlations(one_BN, other_BN))


def _resampled_means(values_NS: Values, draws: np.random.Generator) -> Values:
    index_BS = draws.integers(0, values_NS.shape[1], (RESAMPLES, values_NS.shape[1]))
    means: Values = values_NS[:, index_BS].mean(2).T
    return means


def resamples(count: int) -> npt.NDArray[np.int64]:
    """Places [B, N] of resamples with replacement: all of them for few, else 2,000 random ones."""
    if count <= EXHAUSTIVE:
        return np.array(list(product(range(count), repeat=count)), dtype=np.int64).reshape(-1, count)
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def _interval(rho: float, found_B: Values) -> Agreement:
    known = found_B[~np.isnan(found_B)]
    if math.isnan(rho) or not len(known):
        return Agreement(rho, math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Agreement(rho, float(low), float(high))
