"""Spearman's rho and its bootstrap intervals against closed forms and exhaustive resampling."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from tinymem.localization.agreement import (
    over_scorers,
    over_sequences,
    pooled_strata,
    rank_correlations,
    resamples,
    within_strata,
)
from tinymem.localization.layers.findings import spearman


def test_rho_is_that_of_the_closed_form_and_of_ties_by_mean_ranks():
    draws = np.random.default_rng(0)
    for n in (2, 3, 7, 20):
        one, other = draws.permutation(n), draws.permutation(n)
        expected = 1 - 6 * ((one - other) ** 2).sum() / (n * (n**2 - 1))  # without ties
        assert float(rank_correlations(one[None], other[None])[0]) == pytest.approx(expected)
    tied = draws.integers(0, 3, (50, 6)).astype(float), draws.integers(0, 3, (50, 6)).astype(float)
    for rho, one, other in zip(rank_correlations(*tied), *tied, strict=True):
        expected = spearman(one.tolist(), other.tolist())
        assert math.isnan(rho) if expected is None else rho == pytest.approx(expected)
    assert math.isnan(rank_correlations(np.ones((1, 3)), np.arange(3.0)[None])[0])


def test_the_interval_of_few_scorers_is_that_of_all_resamples():
    one, other = np.array([3.0, 1.0, 2.0, 9.0]), np.array([10.0, 4.0, 20.0, 30.0])
    rhos = []
    for picked in product(range(4), repeat=4):
        rho = spearman(one[list(picked)].tolist(), other[list(picked)].tolist())
        rhos += [] if rho is None else [rho]
    found = over_scorers(one, other)
    assert found.rho == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(rhos, [0.025, 0.975])))
    assert len(resamples(6)) == 6**6 and resamples(7).shape == (2000, 7)
    drawn = over_scorers(np.arange(8.0), np.arange(8.0) ** 2)
    assert (drawn.rho, drawn.low, drawn.high) == (1, 1, 1)
    nothing = over_scorers(np.ones(3), np.arange(3.0))
    assert math.isnan(nothing.rho) and math.isnan(nothing.low)


def test_strata_are_averaged_or_pooled_and_a_scorer_keeps_its_values():
    one = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    other = np.array([[3.0, 2.0, 1.0], [13.0, 12.0, 11.0]])
    within, pooled = within_strata(one, other), pooled_strata(one, other)
    assert (within.rho, within.low, within.high) == (-1, -1, -1), "inside each stratum the order is reversed"
    assert pooled.rho == pytest.approx(spearman([*one[0], *one[1]], [*other[0], *other[1]])) and pooled.rho > 0
    found = within_strata(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), other)
    assert found.rho == -1, "a stratum in which one side is constant has no rho"
    expected = []
    for picked in product(range(3), repeat=3):
        at = list(picked)
        rho = spearman(one[:, at].flatten().tolist(), other[:, at].flatten().tolist())
        expected += [] if rho is None else [rho]
    assert (pooled.low, pooled.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_sequences_are_drawn_alike_for_all_scorers():
    shared = np.random.default_rng(1).normal(size=30)
    one = np.stack([shared + level for level in (0.0, 0.001, 0.002)])
    found = over_sequences(one, None, np.array([1.0, 2.0, 3.0]))
    assert (found.rho, found.low, found.high) == (1, 1, 1), "what all scorers share does not count"
    noisy = np.random.default_rng(2).normal(size=(3, 30)) + np.array([[0.0], [0.2], [0.4]])
    wide = over_sequences(noisy, noisy, noisy.mean(1))
    assert wide.rho == 1 and wide.low < 1
