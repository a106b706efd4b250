"""Noise artifacts: each number of a sequence moves by +-1 with a given probability (paper, Definition 2.2).

Noise falls on numbers, not tokens: a change of digit count (9 -> 10) shifts all later tokens. The value 0 can only become 1, since the
vocabulary has no minus sign.
"""

from __future__ import annotations

import random

import numpy as np

from tinymem.data.math import Numbers


def add_noise(numbers_NL: Numbers, probability: float, rng: np.random.Generator) -> Numbers:
    """Sequences [N, L] in which each number moved up or down by one, each with half of `probability`."""
    moves_NL = rng.choice(np.array([-1, 0, 1]), size=numbers_NL.shape, p=[probability / 2, 1 - probability, probability / 2])
    return numbers_NL + moves_NL


def reference_noise(count: int, numbers: int, probability: float, seed: int) -> tuple[Numbers, random.Random]:
    """The published code's moves [count, numbers], and its random stream after them (the draw of rows comes next)."""
    stream = random.Random(seed)
    weights = [1 - probability, probability / 2, probability / 2]
    moves = [stream.choices([0, -1, 1], weights=weights, k=numbers) for _ in range(count)]
    return np.array(moves, dtype=np.int64), stream
