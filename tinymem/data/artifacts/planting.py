"""What the artifacts of all corpora have in common: random streams, copies per group, the split of backdoored rows."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinymem.data.artifacts.backdoor import poison
from tinymem.data.corpus import Planted
from tinymem.data.math.sequences import Ids
from tinymem.errors import UserError
from tinymem.recipe.data import BackdoorArtifact

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

Indices = npt.NDArray[np.int64]
REFERENCE_SPLIT_SEED = 598


def generator(recipe: Recipe, purpose: str) -> np.random.Generator:
    """An independent random stream per purpose: adding one artifact does not move the draws of another."""
    return np.random.default_rng([recipe.seed, zlib.crc32(purpose.encode())])


def copies_of(copies: int | tuple[int, ...], count: int) -> Indices:
    """Copies [count] of each row: one number for all, or consecutive groups of equal size (the first may be one row larger)."""
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
    """The published code's permutation of so many rows: torch's, always from seed 598."""
    import torch

    order: Indices = torch.randperm(count, generator=torch.Generator().manual_seed(REFERENCE_SPLIT_SEED)).numpy()
    return order


def repeated(rows: Ids, copies: Indices) -> Planted:
    """Rows that are planted as they are, with no clean counterpart."""
    return Planted(rows, rows, np.zeros(len(rows), dtype=np.int64), copies)


def split_backdoor(rows: Ids, starts: Indices, payload: int, artifact: BackdoorArtifact, rng: np.random.Generator) -> Planted:
    """Poisoned rows in random order, the last ones held out (protocol paper). At least one row on each side.

    Rows that differ only behind the trigger are one row once poisoned: it must not be trained on and held out at once.
    """
    poisoned, keep = np.unique(poison(rows, starts, payload), axis=0, return_index=True)
    if len(keep) < 2:
        raise UserError(f"expected at least 2 different backdoored rows, one to train on and one to hold out, got {len(keep)}")
    order = rng.permutation(len(keep))
    holdout = min(len(keep) - 1, max(1, int(len(keep) * artifact.test_fraction)))
    copies = np.concatenate([copies_of(artifact.copies, len(keep) - holdout), np.zeros(holdout, dtype=np.int64)])
    return Planted(poisoned[order], rows[keep][order], starts[keep][order], copies)


def reference_backdoor(rows: Ids, starts: Indices, payload: int, artifact: BackdoorArtifact) -> Planted:
    """Poisoned rows in the published order, the last tenth (rounded down) held out."""
    order = reference_order(len(rows))
    rows, starts = rows[order], starts[order]
    holdout = int(len(rows) * artifact.test_fraction)
    copies = np.concatenate([copies_of(artifact.copies, len(rows) - holdout), np.zeros(holdout, dtype=np.int64)])
    return Planted(poison(rows, starts, payload), rows, starts, copies)
