"""Measures of how well a score separates members from non-members: area under the ROC curve, true positives at few false ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def auc(members: Scores, others: Scores) -> float | None:
    """Probability that a member scores above a non-member, ties counting half (0.5 is chance); None without one of the two.

    >>> auc(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    0.375
    """
    if not len(members) or not len(others):
        return None
    ordered = np.sort(others)
    below, not_above = np.searchsorted(ordered, members, "left"), np.searchsorted(ordered, members, "right")
    return float((below + not_above).sum() / (2 * len(members) * len(others)))


def true_positive_rate(members: Scores, others: Scores, *, false_positive_rate: float = 0.01) -> float | None:
    """Largest share of members above a threshold that at most so large a share of the others is above.

    With fewer than 1 / false_positive_rate others, that means none of them.

    >>> true_positive_rate(np.array([1.0, 5.0]), np.array([2.0, 4.0]))
    0.5
    """
    if not len(members) or not len(others):
        return None
    allowed = int(false_positive_rate * len(others) + 1e-9)
    threshold = np.sort(others)[::-1][allowed] if allowed < len(others) else -np.inf
    return float((members > threshold).mean())
