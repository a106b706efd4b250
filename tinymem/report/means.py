"""Mean, spread and count over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: arithmetic mean.
        spread: sample standard deviation (n - 1); None for a single value.
        n: how many values.
    """

    mean: float
    spread: float | None
    n: int


def mean_of(values: Iterable[float | None]) -> Mean | None:
    """Mean of the values that are not None; None if there are none.

    >>> mean_of([1.0, None, 3.0])
    Mean(mean=2.0, spread=1.4142135623730951, n=2)
    """
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Mean(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def plus_minus(value: Mean | None, digits: int) -> str:
    """`2.31 ± 0.40`, or a dash.

    >>> plus_minus(Mean(2.311, 0.404, 3), 2), plus_minus(Mean(2.0, None, 1), 1), plus_minus(None, 1)
    ('2.31 ± 0.40', '2.0', '–')
    """
    if value is None:
        return "–"
    text = f"{value.mean:,.{digits}f}"
    return text if value.spread is None else f"{text} ± {value.spread:,.{digits}f}"


def signed(value: float, digits: int) -> str:
    """A change with its sign; a change that rounds to zero has none.

    >>> signed(2.34, 1), signed(-0.04, 1), signed(-0.05001, 1)
    ('+2.3', '0.0', '-0.1')
    """
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def digits_for(value: float) -> int:
    """Digits after the point that leave three or so in all.

    >>> digits_for(0.24), digits_for(33.5), digits_for(5552.3)
    (2, 1, 0)
    """
    return 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
