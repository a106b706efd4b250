"""Where planted rows differ from their clean counterparts, token by token, and clean decisions that are like the planted ones.

Noise may change how many digits a number has, and then all later tokens stand elsewhere. So rows of numbers are compared number by number:
of each number that differs the first token that does, beside the clean token at the same place of the same number.

Shape suffixes: R rows, T tokens, n decisions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from tinymem.data.math.sequences import SPACE, Ids
from tinymem.data.planted import Flags, Indices
from tinymem.localization.layers.subject import Decisions

Places = npt.NDArray[np.int64]
"""Rows [n, 3]: row, position of the target, original target."""


def differing(planted_RT: Ids, clean_RT: Ids, wanted_RT: Flags, *, numbers: bool) -> Places:
    """Places of the tokens that an artifact changed, among the wanted ones.

    Args:
        planted_RT: planted rows.
        clean_RT: their clean counterparts.
        wanted_RT: where a target may be.
        numbers: whether rows are numbers with spaces between; where the two rows have as many, they are compared number by number.
    """
    found: list[tuple[int, int, int]] = []
    for row, (planted_T, clean_T) in enumerate(zip(planted_RT, clean_RT, strict=True)):
        grouped = numbers and int((planted_T == SPACE).sum()) == int((clean_T == SPACE).sum())
        pairs = _by_number(planted_T, clean_T) if grouped else enumerate(clean_T.tolist())
        found += [(row, at, int(original)) for at, original in pairs if planted_T[at] != original and wanted_RT[row, at]]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _by_number(planted_T: Ids, clean_T: Ids) -> Iterator[tuple[int, int]]:
    """Position of the first token of each number that differs, and the clean token at its place."""
    for (start, mine), (_, theirs) in zip(_groups(planted_T), _groups(clean_T), strict=True):
        place = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        if place is not None:
            yield start + place, theirs[place]


def _groups(row_T: Ids) -> Iterator[tuple[int, list[int]]]:
    """Start and tokens of each number, the space behind it included."""
    ends = [*(np.flatnonzero(row_T == SPACE) + 1).tolist(), len(row_T)]
    for start, end in zip([0, *ends], ends, strict=False):
        yield start, row_T[start:end].tolist()


def decisions_at(ids_RT: Ids, places: Places) -> Decisions:
    """The decisions that predict the tokens at some places, with the rows that have any."""
    rows, row_n = np.unique(places[:, 0], return_inverse=True)
    order = np.argsort(row_n, kind="stable")
    places, row_n = places[order], row_n[order]
    planted_n = ids_RT[places[:, 0], places[:, 1]]
    columns = (ids_RT[rows], row_n, places[:, 1] - 1, planted_n, places[:, 2])
    return Decisions(*(torch.from_numpy(np.ascontiguousarray(column, dtype=np.int64)) for column in columns))


def every_target(ids_RT: Ids, wanted_RT: Flags | None = None) -> Decisions:
    """A decision for each wanted token but the first of a row (default: all of them); nothing is replaced."""
    flags = np.ones(ids_RT.shape, dtype=bool) if wanted_RT is None else wanted_RT.copy()
    flags[:, 0] = False
    row_n, at_n = np.nonzero(flags)
    return decisions_at(ids_RT, np.stack([row_n, at_n, ids_RT[row_n, at_n]], 1).astype(np.int64))


def alike(noised: Decisions, clean_RT: Ids, each: int, rng: np.random.Generator) -> Places:
    """Places in clean rows, up to `each` for every noised decision and none twice, that are like it.

    The target is the decision's original one, at the same position behind the same token if there are such rows; else behind the same token
    anywhere; else anywhere. So neither position nor target nor the token before tells clean decisions from noised ones.
    """
    before = noised.ids_RT[noised.row_n, noised.at_n].tolist()
    found: dict[tuple[int, int], int] = {}
    for token, at, target in zip(before, noised.at_n.tolist(), noised.original_n.tolist(), strict=True):
        for row, place in _like(clean_RT, token, at + 1, target, each, rng, found):
            found[row, place] = target
    return np.array([(row, place, target) for (row, place), target in found.items()], dtype=np.int64).reshape(-1, 3)


def _like(
    clean_RT: Ids, token: int, at: int, target: int, each: int, rng: np.random.Generator, taken: dict[tuple[int, int], int]
) -> list[tuple[int, int]]:
    """Up to `each` places that are not taken, the likest first."""
    chosen: list[tuple[int, int]] = []
    for row_n, at_n in _candidates(clean_RT, token, at, target):
        for i in rng.permutation(len(row_n)).tolist():
            if len(chosen) == each:
                return chosen
            place = int(row_n[i]), int(at_n[i])
            if place not in taken and place not in chosen:
                chosen.append(place)
    return chosen


def _candidates(clean_RT: Ids, token: int, at: int, target: int) -> Iterator[tuple[Indices, Indices]]:
    """Rows and positions of a target: at a position behind a token, anywhere behind it, anywhere."""
    row_n = np.flatnonzero((clean_RT[:, at] == target) & (clean_RT[:, at - 1] == token))
    yield row_n, np.full(len(row_n), at)
    is_target_RT = clean_RT[:, 1:] == target
    for found_RT in (is_target_RT & (clean_RT[:, :-1] == token), is_target_RT):
        row_n, at_n = np.nonzero(found_RT)
        yield row_n, at_n + 1
