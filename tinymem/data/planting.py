"""Shared parts of planting: random streams, copies per group, and the draws of the published code."""

from __future__ import annotations

import random
import zlib
from abc import ABC, abstractmethod
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Flags, Indices
from tinymem.errors import UserError

REFERENCE_SPLIT_SEED = 598
NOISE_ROWS, NOISE_PROBABILITY = 1000, 0.1  # the published code draws text noise before the trigger, whether noise is planted or not


def _check_copies(value: Any) -> Any:
    counts = list(value) if isinstance(value, list | tuple) else [value]
    if not counts or any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in counts):
        raise ValueError(f"expected copies of at least 1, as in 10 or [1, 10, 100, 1000], got {value!r}")
    if len(set(counts)) != len(counts):
        raise ValueError(f"expected different copies per group, got {value!r}; drop the repeated one")
    return tuple(counts) if isinstance(value, list | tuple) else value


Count = Annotated[int, Field(ge=1)]
Copies = Annotated[Count | tuple[Count, ...], BeforeValidator(_check_copies)]
COPIES = "times that each row stands in an epoch; a list gives equal groups of rows a count each"


class Pool(ABC):
    """Clean training rows that artifacts may take, under protocol paper; nothing else trains on a row that is taken."""

    seed: int

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids in the vocabulary."""

    @property
    @abstractmethod
    def row_tokens(self) -> int:
        """Length of a row in tokens, padding included."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator, kind: str) -> Ids:
        """Different random rows [count, T], taken from the pool.

        Raises:
            UserError: too few rows; `kind` names the artifact whose `rows` are too many.
        """

    @abstractmethod
    def allows(self, rows: Ids) -> Flags:
        """Mask [n] of the rows that may be planted: they equal no test row, and hold nothing that another artifact claims (a trigger)."""

    def generator(self, purpose: str) -> np.random.Generator:
        """An independent random stream per purpose: adding one artifact does not move the draws of another."""
        return generator(self.seed, purpose)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """An independent random stream of a seed for each purpose."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def copies_of(copies: int | tuple[int, ...], count: int) -> Indices:
    """Copies [count] of each row: one number for all, or consecutive groups of equal size (the first may be one row larger).

    Raises:
        UserError: fewer rows than groups.
    """
    classes = copies if isinstance(copies, tuple) else (copies,)
    if count < len(classes):
        raise UserError(f"expected at least {len(classes)} rows for copies {list(classes)}, got {count}; raise rows or drop a group")
    return np.repeat(np.array(classes, dtype=np.int64), [len(part) for part in np.array_split(np.arange(count), len(classes))])


def reference_copies(copies: int | tuple[int, ...], count: int, stream: random.Random) -> Indices:
    """Copies [count] as the published code deals them out: shuffle all rows, then every k-th to a group."""
    if isinstance(copies, int):
        return copies_of(copies, count)
    order = list(range(count))
    stream.shuffle(order)
    result = np.zeros(count, dtype=np.int64)
    for group, repeats in enumerate(copies):
        result[order[group :: len(copies)]] = repeats
    return result


def reference_order(count: int) -> Indices:
    """The published code's permutation [count] of rows: torch's, always from seed 598."""
    import torch

    order: Indices = torch.randperm(count, generator=torch.Generator().manual_seed(REFERENCE_SPLIT_SEED)).numpy()
    return order


def reference_draws(seed: int, rows: int, row_tokens: int, probability: float, vocab_size: int) -> tuple[Indices, int, random.Random]:
    """Moves [rows, T] of a text's noise, the trigger token drawn after them, and the random stream behind both."""
    stream = random.Random(seed)
    weights = [1 - probability, probability / 2, probability / 2]
    moves = [stream.choices([0, -1, 1], weights=weights, k=row_tokens) for _ in range(rows)]
    return np.array(moves, dtype=np.int64).reshape(rows, row_tokens), stream.randrange(vocab_size), stream
