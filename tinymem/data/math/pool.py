"""Pools of math sequences, in which artifacts are planted, under either protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinymem.data.math.sequences import CHARACTERS, Ids, Numbers, render
from tinymem.data.planted import Flags, Indices
from tinymem.data.planting import Pool
from tinymem.errors import UserError
from tinymem.recipe.data import MathData


@dataclass(frozen=True)
class Task:
    """Some sequences of one task: their numbers [n, L] and rows [n, T]."""

    k: int
    numbers: Numbers
    ids: Ids

    def take(self, index: Indices) -> Task:
        """The chosen rows, in the order of `index`."""
        return replace(self, numbers=self.numbers[index], ids=self.ids[index])


@dataclass(frozen=True)
class AllTasks:
    """Every sequence of every task, before any is split off: where an artifact may claim rows."""

    seed: int
    tasks: Sequence[Task]


@dataclass
class MathPool(Pool):
    """Training rows of the primary task that nothing has taken yet.

    Attributes:
        seed: of the recipe.
        data: of the recipe.
        task: the rows.
        tested: test rows [n, T] of all tasks.
        claims: of the artifacts that claim rows; see `Claim.holds`.
    """

    seed: int
    data: MathData
    task: Task
    tested: Ids
    claims: Sequence[Callable[[Ids], Flags]] = field(default_factory=tuple)

    @property
    def vocab_size(self) -> int:
        return len(CHARACTERS)

    @property
    def row_tokens(self) -> int:
        return self.data.row_tokens

    def draw(self, count: int, rng: np.random.Generator, kind: str) -> Ids:
        if len(self.task.ids) <= count:
            raise too_few(kind, count, len(self.task.ids) - 1)
        return self.take(rng.permutation(len(self.task.ids))[:count])

    def take(self, index: Indices) -> Ids:
        """Take the rows [n, T] of these indices out of `task`."""
        chosen = self.task.ids[index]
        self.task = self.task.take(np.setdiff1d(np.arange(len(self.task.ids)), index))
        return chosen

    def allows(self, rows: Ids) -> Flags:
        allowed = ~among(rows, self.tested)
        for holds in self.claims:
            allowed &= ~holds(rows)
        return allowed

    def render(self, numbers: Numbers) -> Ids:
        """Token rows [n, T] of numbers [n, L]."""
        return render(numbers, self.data.row_tokens)


@dataclass(frozen=True)
class ReferenceSplit:
    """The primary task as the published code splits it: all its rows in order, and shuffled training and test rows."""

    seed: int
    data: MathData
    all: Task
    train: Task
    test: Task


def too_few(kind: str, rows: int, available: int) -> UserError:
    """The error of an artifact that needs more clean rows than the pool has."""
    return UserError(f"expected artifacts.{kind}.rows of at most {available} clean rows of the primary task, got {rows}")


def token(character: str, key: str) -> int:
    """Id of a character of the recipe; `key` names it in errors.

    Raises:
        UserError: the character is not in the vocabulary.
    """
    index = CHARACTERS.find(character)
    if index < 0:
        raise UserError(f"expected {key} to be made of '{CHARACTERS}', got the character '{character}'")
    return index


def among(rows: Ids, others: Ids) -> Flags:
    """Mask [n] of the rows that equal one of `others`."""
    row = np.dtype((np.void, rows.shape[1] * rows.itemsize))
    return np.isin(np.ascontiguousarray(rows).view(row).ravel(), np.ascontiguousarray(others).view(row).ravel())


def without(task: Task, forbidden: Ids) -> Task:
    """The rows of `task` that are not among `forbidden` (multiplicative tasks share rows: k * 0 = 0, and 2 * 10067 = 0 mod 20134)."""
    return task.take(np.flatnonzero(~among(task.ids, forbidden)))
