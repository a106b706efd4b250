"""Parts of a set of rows of which one is kept from the method: rows that are alike stay on one side, or the other would tell nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from tinymem.data.planted import Indices
from tinymem.evaluation.probes import Flags


def first_part(group_N: Indices, wanted: int) -> Flags:
    """Mask [N] of a part of some rows: the first `wanted`, or where groups are not to be parted as near to that as they allow.

    It is all rows only if all are wanted or there is one group, and no rows only if there are none.
    """
    size_of = Counter(group_N.tolist())  # in the order of their first rows
    total = len(group_N)
    taken, left = _first_fitting(size_of, wanted, None)
    if left:  # skipping what no longer fits has missed the number; is there another choice?
        sums = [1]  # the sizes that the groups from each on can add up to, as bits; the last first
        for size in reversed(size_of.values()):
            sums.append(sums[-1] | sums[-1] << size)
        possible = [n for n in range(1, total + (wanted >= total)) if sums[-1] >> n & 1] or [total]
        taken, _ = _first_fitting(size_of, min(possible, key=lambda n: abs(n - wanted)), sums[-2::-1])
    return np.isin(group_N, list(taken))


def _first_fitting(size_of: Mapping[int, int], wanted: int, sums: list[int] | None) -> tuple[set[int], int]:
    """The first groups of at most `wanted` rows, and the rows that are missing; with `sums` of the groups behind each none are."""
    taken, left = set(), wanted
    for i, (group, size) in enumerate(size_of.items()):
        if size <= left and (sums is None or sums[i] >> (left - size) & 1):
            taken.add(group)
            left -= size
    return taken, left
