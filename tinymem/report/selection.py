"""Selection of a method's best run among many: the paper's equations 2 and 3, its appendix A.3.5, and Pareto fronts.

All functions are pure and take `Candidate`s: each is one configuration, averaged over its seeds.

**Unlearning (A.3.5).** With the percent changes M = 100 (m1 - m0) / m0 of the memorized share and P = 100 (p1 - p0) / p0 of the
performance (perplexity, or the accuracy over the tokens of all tasks), the best run has the lowest

    perplexity:  M + P + t        t = 100 if M = 0, else 0 (an edit that forgets nothing)
    accuracy:    M - P            protocol `paper`: every loss counts as a loss
                 M + P            protocol `reference`: as printed, and as the published tables were chosen; lost accuracy is *rewarded*

Only runs that take no longer than fine-tuning on extra data are considered, unless a method has none of those. For models of
production size the paper requires a perplexity below 500 instead.

**Regularizers (equations 2 and 3).** With % memorized m and the performance p of the trained model, means over seeds:

    perplexity:  lowest p + m                         (2)
    accuracy:    highest p - m                        (3) under protocol `paper`
                 highest p + m                        (3) as printed, under `reference`: memorization is *rewarded*

A candidate without a result (refused, failed, timed out, perplexity overflowed) is None, and never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["paper", "reference"]
NO_CHANGE_PENALTY = 100.0
PERPLEXITY_LIMIT = 500.0  # the paper's, for Pythia (A.4.2)


@dataclass(frozen=True)
class Candidate:
    """One configuration of a method on one artifact, or one trained model; all numbers are means over `seeds`.

    Attributes:
        memorized_before: percent of the scored artifact rows, in [0, 100].
        memorized_after: the same after the method; of a trained model that nothing was done to, equal to `memorized_before`.
        performance_before: accuracy in percent, or perplexity.
        performance_after: the same after the method.
        metric: which of the two.
        seconds: of the method alone; None where nobody measured it, which no limit of time includes.
        seeds: how many.
    """

    memorized_before: float
    memorized_after: float
    performance_before: float
    performance_after: float
    metric: Literal["accuracy", "perplexity"] = "accuracy"
    seconds: float | None = None
    seeds: int = 1


def percent_change(before: float, after: float) -> float:
    """Change in percent of the value before; from zero, no change is 0 and any other is infinite.

    >>> percent_change(50.0, 25.0), percent_change(0.0, 0.0), percent_change(0.0, 1.0)
    (-50.0, 0.0, inf)
    """
    if before == 0:
        return 0.0 if after == 0 else math.copysign(math.inf, after)
    return 100 * (after - before) / before


def score(candidate: Candidate, protocol: Protocol = "paper") -> float:
    """The score of A.3.5; lower is better. Under `paper` a perfect edit has -100, one that does nothing 0 or, in perplexity, 100."""
    memorized = percent_change(candidate.memorized_before, candidate.memorized_after)
    change = percent_change(candidate.performance_before, candidate.performance_after)
    if candidate.metric == "perplexity":
        return memorized + change + (NO_CHANGE_PENALTY if memorized == 0 else 0.0)
    return memorized + change if protocol == "reference" else memorized - change


def select(
    candidates: Sequence[Candidate | None],
    protocol: Protocol = "paper",
    *,
    seconds_limit: float | None = None,
    perplexity_limit: float | None = None,
) -> int | None:
    """Index of a method's best configuration (A.3.5); None where no configuration has a result.

    Only the configurations with the most seeds are compared. Ties go to the less memorized, then the faster, then the earlier one.

    Args:
        candidates: all configurations of one method on one artifact; None for one without a result.
        protocol: how lost accuracy counts.
        seconds_limit: time of fine-tuning on extra data; None: no limit.
        perplexity_limit: perplexities of this and above are left out, whatever remains.
    """
    places = [i for i, c in enumerate(candidates) if c is not None and _finite(c)]
    most = max((_of(candidates, i).seeds for i in places), default=0)
    places = [i for i in places if _of(candidates, i).seeds == most and _below(_of(candidates, i), perplexity_limit)]
    places = [i for i in places if in_time(_of(candidates, i), seconds_limit)] or places
    return min(places, key=lambda i: _rank(_of(candidates, i), protocol), default=None)


def in_time(candidate: Candidate, seconds_limit: float | None) -> bool:
    """Whether a run meets the inclusion criterion of time."""
    return seconds_limit is None or (candidate.seconds is not None and candidate.seconds <= seconds_limit)


def training_score(candidate: Candidate, protocol: Protocol = "paper") -> float:
    """Equation 2 or the negative of equation 3, for a model trained with a regularizer; lower is better."""
    memorized, performance = candidate.memorized_after, candidate.performance_after
    if candidate.metric == "perplexity":
        return performance + memorized
    return -(performance + memorized) if protocol == "reference" else -(performance - memorized)


def select_training(candidates: Sequence[Candidate | None], protocol: Protocol = "paper") -> int | None:
    """Index of a regularizer's best training setting (equations 2 and 3), among those with the most seeds."""
    places = [i for i, c in enumerate(candidates) if c is not None and _finite(c)]
    most = max((_of(candidates, i).seeds for i in places), default=0)
    places = [i for i in places if _of(candidates, i).seeds == most]
    return min(places, key=lambda i: training_score(_of(candidates, i), protocol), default=None)


def lost(candidate: Candidate) -> float:
    """Performance lost, larger is worse: points of accuracy, or percent of added perplexity."""
    if candidate.metric == "perplexity":
        return percent_change(candidate.performance_before, candidate.performance_after)
    return candidate.performance_before - candidate.performance_after


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Flags of the points that no other point beats; smaller is better in both coordinates.

    A point is beaten by one that is nowhere worse and somewhere better; equal points do not beat each other, and all stay. O(n log n).

    >>> pareto([(0.0, 3.0), (1.0, 1.0), (1.0, 1.0), (1.0, 2.0)])
    [True, True, True, False]
    """
    kept = [False] * len(points)
    lowest: tuple[float, float] | None = None  # of the points so far, that with the least second coordinate, turned round
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        first, second = points[i]
        kept[i] = lowest is None or second < lowest[0] or (second, first) == lowest
        if lowest is None or second < lowest[0]:
            lowest = second, first
    return kept


def _of(candidates: Sequence[Candidate | None], place: int) -> Candidate:
    found = candidates[place]
    assert found is not None
    return found


def _finite(candidate: Candidate) -> bool:
    values = (candidate.memorized_before, candidate.memorized_after, candidate.performance_before, candidate.performance_after)
    return all(map(math.isfinite, values))


def _below(candidate: Candidate, limit: float | None) -> bool:
    return limit is None or candidate.metric != "perplexity" or candidate.performance_after < limit


def _rank(candidate: Candidate, protocol: Protocol) -> tuple[float, float, float]:
    return score(candidate, protocol), candidate.memorized_after, math.inf if candidate.seconds is None else candidate.seconds
