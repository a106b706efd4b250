"""The confusion matrix of DEL by category: what dropping one row's neurons does to rows of its own kind, and to rows of others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from tinymem.localization.deletion import Deletion
from tinymem.results.nested import ConfusionColumn
from tinymem.runtime.files import content_id

MOST = 128
"""Rows up to which the matrix has a line for each; of more, one for each category."""


def confusion_of(found: Deletion, categories: Sequence[str]) -> ConfusionColumn:
    """The change of accuracy of each row (column) when each target's (line) neurons are dropped, categories side by side.

    Args:
        found: the measured deletions.
        categories: of each memorized row.
    """
    targets, place = found.targets_N.tolist(), {name: n for n, name in enumerate(_in_order(categories))}
    lines = sorted(range(len(targets)), key=lambda n: (place[categories[targets[n]]], targets[n]))
    columns = sorted(range(len(categories)), key=lambda s: (place[categories[s]], s))
    changes = found.confusion_NS.double().cpu().tolist()
    if len(categories) > MOST:
        return _by_category(changes, targets, categories)
    cells: list[list[float | None]] = [[round(changes[n][s], 4) for s in columns] for n in lines]
    return {
        "targets": [categories[targets[n]] for n in lines],
        "rows": [categories[s] for s in columns],
        "changes": cells,
        "categories": _id(categories),
    }


def is_of(matrix: ConfusionColumn, categories: Sequence[str]) -> bool:
    """Whether a stored matrix is one of these categories; a file of rows may have other ones than when it was made."""
    return matrix.get("categories") == _id(categories)


def _id(categories: Sequence[str]) -> str:
    return content_id(list(categories))


def _by_category(changes: list[list[float]], targets: Sequence[int], categories: Sequence[str]) -> ConfusionColumn:
    """Means over the pairs of two categories, a target with itself left out; None where there is no pair."""
    names = _in_order(categories)
    cells: list[list[float | None]] = []
    for one in names:
        lines = [(changes[n], target) for n, target in enumerate(targets) if categories[target] == one]
        cells.append([_mean([line[s] for line, t in lines for s, c in enumerate(categories) if c == other and s != t]) for other in names])
    return {"targets": names, "rows": names, "changes": cells, "categories": _id(categories)}


def _in_order(categories: Iterable[str]) -> list[str]:
    """The different categories by name, numbers in them by size: 20 copies stand before 100."""
    return sorted(
        set(categories), key=lambda name: [(int(part), "") if n % 2 else (0, part) for n, part in enumerate(re.split(r"(\d+)", name))]
    )


def _mean(values: list[float]) -> float | None:
    return round(math.fsum(values) / len(values), 4) if values else None
