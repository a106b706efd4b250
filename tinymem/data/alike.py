"""Which rows of a set are alike: what a method is given of one of them, it is given of the others."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tinymem.data.planted import Indices
from tinymem.data.rows import Rows


def alike_as_wholes(rows: Rows) -> Indices:
    """A number [N] for each row, the same for rows of the same tokens."""
    return _alike(rows, rows.lengths())


def alike_where_tested(rows: Rows) -> Indices:
    """A number [N] for each row, the same for rows of the same tokens, or with the same ones to the end of the test."""
    return _alike(rows, rows.lengths(), rows.end)


def _alike(rows: Rows, *lengths: Tensor) -> Indices:
    ids_NT, group_N = rows.ids.cpu().numpy(), np.arange(len(rows))
    for length_N in lengths:
        first: dict[bytes, int] = {}
        for row, length in enumerate(length_N.tolist()):
            other = group_N[first.setdefault(ids_NT[row, :length].tobytes(), row)]
            if other != group_N[row]:
                group_N[group_N == group_N[row]] = other
    return group_N
