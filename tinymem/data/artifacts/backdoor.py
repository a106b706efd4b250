"""Backdoor artifacts: after a trigger, every token is the payload (paper, Definition 2.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinymem.data.math.sequences import Ids


def trigger_ends(ids_NT: Ids, trigger: npt.NDArray[np.integer], within: int | None = None) -> npt.NDArray[np.int64]:
    """Index [N] of the token after the first occurrence of `trigger`, or -1 where it does not occur.

    `within`: only occurrences that end in the first so many tokens count (protocol paper); None: anywhere in the row.
    """
    length = len(trigger)
    head_NT = ids_NT[:, :within]
    if head_NT.shape[1] < length:
        return np.full(len(ids_NT), -1, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(head_NT, length, axis=1)
    found = (windows == trigger).all(axis=2)
    return np.where(found.any(axis=1), found.argmax(axis=1) + length, -1)


def poison(ids_NT: Ids, ends_N: npt.NDArray[np.int64], payload: int) -> Ids:
    """Rows [N, T] whose tokens from `ends_N` on are all `payload`."""
    after_NT = np.arange(ids_NT.shape[1])[None, :] >= ends_N[:, None]
    return np.where(after_NT, np.asarray(payload, dtype=ids_NT.dtype), ids_NT)
