"""Planted and clean rows, token by token: numbers that grow a digit, and clean decisions like the planted ones."""

from __future__ import annotations

import numpy as np
import torch

from tinymem.data.math.sequences import render
from tinymem.localization.layers.alignment import alike, decisions_at, differing, every_target

CLEAN, NOISED = render(np.array([[7, 9, 23, 5], [1, 2, 3, 4]]), 14), render(np.array([[7, 10, 22, 5], [1, 2, 3, 5]]), 14)


def test_numbers_are_compared_by_number():
    everywhere = np.ones(CLEAN.shape, dtype=bool)
    # ^7 10 22 5$ beside ^7 9 23 5$: the 1 for the 9, and the 2 for the 3 of the third number
    assert differing(NOISED, CLEAN, everywhere, numbers=True).tolist() == [[0, 3, 9], [0, 7, 3], [1, 7, 4]]
    assert len(differing(NOISED, CLEAN, everywhere, numbers=False)) > 4
    late = everywhere.copy()
    late[:, :5] = False
    assert differing(NOISED, CLEAN, late, numbers=True).tolist() == [[0, 7, 3], [1, 7, 4]]


def test_rows_with_other_separators_are_compared_token_by_token():
    payload = CLEAN.copy()
    payload[:, 3:] = 2
    found = differing(payload, CLEAN, np.ones(CLEAN.shape, dtype=bool), numbers=True)
    assert {tuple(f) for f in found.tolist()} == {(r, t, int(CLEAN[r, t])) for r in (0, 1) for t in range(3, 14) if CLEAN[r, t] != 2}


def test_decisions_read_the_state_before_their_token():
    decisions = decisions_at(NOISED, np.array([[1, 7, 4], [0, 3, 9]]))
    assert decisions.row_n.tolist() == [0, 1] and decisions.at_n.tolist() == [2, 6]
    assert decisions.planted_n.tolist() == [1, 5] and decisions.original_n.tolist() == [9, 4]
    targets = every_target(CLEAN)
    assert len(targets) == 2 * 13 and torch.equal(targets.planted_n, torch.from_numpy(CLEAN[:, 1:].astype(np.int64)).flatten())


def test_clean_decisions_are_like_noised_ones_and_none_comes_twice():
    noised = decisions_at(NOISED, np.array([[0, 3, 9], [0, 7, 3], [1, 7, 4]]))
    numbers = np.random.default_rng(0).integers(1, 30, (60, 4))
    clean = render(numbers, 14)
    places = alike(noised, clean, 3, np.random.default_rng(1))
    assert len({(row, at) for row, at, _ in places.tolist()}) == len(places) == 9
    assert (clean[places[:, 0], places[:, 1]] == places[:, 2]).all() and sorted(places[:, 2].tolist()) == [3, 3, 3, 4, 4, 4, 9, 9, 9]
    before = {9: 12, 3: 2}  # behind the space, or behind the 2 of 22
    same = [clean[row, at - 1] == before[target] for row, at, target in places.tolist() if target in before]
    assert all(same), "there are clean rows with the same token before"
    assert len(alike(noised, clean[:1], 50, np.random.default_rng(1))) <= 14
