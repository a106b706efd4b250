"""Reasons for the differences between our numbers and published ones: only what a run shows, chance with its p-value, or `unexplained`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinymem.report.means import Mean

SIGNIFICANT = 0.05
ACCURACY_POINTS = 0.1
"""Differences of accuracy up to this are within the rounding of machines and versions, whatever the spread over seeds."""


PERPLEXITY_PERCENT = 1.0
"""The same of perplexity, in percent of the trained model's."""


@dataclass(frozen=True)
class Pair:
    """One number of ours, a mean over seeds, beside the published one; both in percent or points.

    Attributes:
        resolution: the least difference that can be seen, such as that of one row.
    """

    ours: Mean
    published: float
    resolution: float

    @property
    def difference(self) -> float:
        """Ours less the published number."""
        return self.ours.mean - self.published

    @property
    def is_within(self) -> bool:
        """Whether the difference is no larger than our standard deviation over seeds, or than the resolution."""
        return abs(self.difference) <= max(self.ours.spread or 0.0, self.resolution) + 1e-9

    @property
    def p(self) -> float | None:
        """Two-sided p-value of Student's t-test that our three seeds come from a distribution whose mean is the published number.

        None for any other number of seeds (with two degrees of freedom the distribution has a closed form), or equal values.
        """
        if self.ours.n != 3 or not self.ours.spread:
            return None
        t = abs(self.difference) / (self.ours.spread / math.sqrt(3))
        return 1 - t / math.sqrt(t * t + 2)

    @property
    def is_chance(self) -> bool:
        """Whether the difference may be chance: within, or a p-value above 5 %."""
        return self.is_within or (self.p is not None and self.p > SIGNIFICANT)


Pairs = tuple[Pair, ...]


@dataclass(frozen=True)
class Evidence:
    """Other runs of ours, or another choice among the same runs, with their numbers beside the same published ones.

    Attributes:
        is_run: of the method; else the model without an edit, which is a reason where it agrees, but not named as the nearest.
    """

    words: str
    pairs: Pairs
    is_run: bool = True


def reason_of(pairs: Pairs, evidence: Sequence[Evidence]) -> str:
    """The reason for a line's difference; empty where none exceeds the spread.

    Evidence counts where all of its numbers agree with the published ones, and none is farther from them than ours or our spread: a wide
    spread of its own agrees with anything. Where none does, the nearest is named with its numbers.
    """
    if all(pair.is_within for pair in pairs):
        return ""
    if all(pair.is_chance for pair in pairs):
        p = min(pair.p for pair in pairs if pair.p is not None and not pair.is_within)
        return f"chance (p = {p:.2f})"
    for shown in evidence:
        if all(pair.is_chance and _is_nearer(pair, own) for pair, own in zip(shown.pairs, pairs, strict=True)):
            return f"{shown.words} gives {_numbers(shown.pairs)}"
    runs = [shown for shown in evidence if shown.is_run]
    if not runs:
        return "unexplained"
    nearest = min(runs, key=lambda shown: sum(abs(pair.difference) for pair in shown.pairs))
    return f"unexplained; nearest: {nearest.words}, {_numbers(nearest.pairs)}"


def _is_nearer(pair: Pair, own: Pair) -> bool:
    return abs(pair.difference) <= max(abs(own.difference), own.ours.spread or 0.0, own.resolution)


def _numbers(pairs: Pairs) -> str:
    return " / ".join(f"{pair.ours.mean:.2f}" for pair in pairs)
