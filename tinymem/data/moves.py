"""Moves of numbers and token ids up or down by one, which noise artifacts consist of (paper, Definition 2.2)."""

from __future__ import annotations

import random

import numpy as np

from tinymem.data.math.sequences import Ids, Numbers


def add_noise(numbers_NL: Numbers, probability: float, rng: np.random.Generator) -> Numbers:
    """Sequences [N, L] in which each number moved up or down by one, each with half of `probability`."""
    return numbers_NL + _moves(numbers_NL.shape, probability, rng)


def add_token_noise(ids_NT: Ids, probability: float, vocab_size: int, rng: np.random.Generator) -> Ids:
    """Rows [N, T] in which each id moved up or down by one, each with half of `probability`, staying inside the vocabulary."""
    return apply_moves(ids_NT, _moves(ids_NT.shape, probability, rng), vocab_size)


def apply_moves(ids_NT: Ids, moves_NT: Numbers, vocab_size: int) -> Ids:
    """Ids plus moves; a move out of [0, vocab_size) is reversed (the published code would crash there)."""
    moved_NT = ids_NT.astype(np.int64) + moves_NT
    inside_NT = (moved_NT >= 0) & (moved_NT < vocab_size)
    return np.where(inside_NT, moved_NT, ids_NT.astype(np.int64) - moves_NT).astype(ids_NT.dtype)


def _moves(shape: tuple[int, ...], probability: float, rng: np.random.Generator) -> Numbers:
    moves: Numbers = rng.choice(np.array([-1, 0, 1]), size=shape, p=[probability / 2, 1 - probability, probability / 2])
    return moves


def reference_noise(count: int, numbers: int, probability: float, seed: int) -> tuple[Numbers, random.Random]:
    """The published code's moves [count, numbers], and its random stream after them (the draw of rows comes next)."""
    stream = random.Random(seed)
    weights = [1 - probability, probability / 2, probability / 2]
    moves = [stream.choices([0, -1, 1], weights=weights, k=numbers) for _ in range(count)]
    return np.array(moves, dtype=np.int64), stream
