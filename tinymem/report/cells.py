"""Formatting of values for readers: percentages, counts, intervals, dashes and labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tinymem.report.means import digits_for
from tinymem.results.columns import LABEL_COLUMNS
from tinymem.results.row import MeasuredRow
from tinymem.results.share import Share
from tinymem.runtime.json import Json

DASH = "–"
FEW = 30  # scored rows


def number(value: float | None, digits: int = 1) -> str:
    """A plain number with thousands separated, or a dash.

    >>> number(1234.56), number(None)
    ('1,234.6', '–')
    """
    return DASH if value is None else f"{value:,.{digits}f}"


def significant(value: float | None) -> str:
    """A number with three or so significant digits, or a dash.

    >>> significant(0.0213), significant(15.93), significant(None)
    ('0.02', '15.9', '–')
    """
    return number(value, 0 if value is None else digits_for(value))


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.8636)
    '86.4 %'
    """
    return DASH if share is None else f"{100 * share:.1f} %"


def fraction(share: Share) -> str:
    """`38/44`."""
    return f"{share.count}/{share.rows}"


def interval(share: Share) -> str:
    """The 95 % interval in percent, with a digit after the point where it is narrow; empty without rows.

    >>> interval(Share(38, 44)), interval(Share(97, 10_000))
    ('73–94', '0.8–1.2')
    """
    if share.interval is None:
        return ""
    low, high = (100 * end for end in share.interval)
    digits = 0 if high - low >= 2 else 1
    return f"{low:.{digits}f}–{high:.{digits}f}"


def percent_of(share: Share | None) -> str:
    """A percentage with its count and interval.

    >>> percent_of(Share(38, 44))
    '86.4 % (38/44, 73–94)'
    """
    return f"{percent(share.share)} ({fraction(share)}, {interval(share)})" if share and share.rows else DASH


def little_data(rows: dict[str, int | None], seeds: int) -> list[str]:
    """Sentences that say how little the numbers rest on: one seed, or fewer than 30 scored rows of an artifact."""
    found = ["One seed: how much another training would differ is not known."] if seeds == 1 else []
    few = [f"{artifact} {count}" for artifact, count in rows.items() if count is not None and count < FEW]
    return found + ([f"Fewer than {FEW} rows scored ({', '.join(few)}): shares are rough, see their intervals."] if few else [])


def performance(row: MeasuredRow, value: float | None) -> str:
    """Accuracy as a percentage; perplexity (lower is better) as a plain number."""
    return percent(value) if row.is_share else number(value, 2)


def metrics(rows: list[MeasuredRow]) -> list[str]:
    """Performance metrics of the rows, in order of appearance; accuracy where no row records one."""
    return list(dict.fromkeys(row.performance_metric or "accuracy" for row in rows)) or ["accuracy"]


def reason(row: MeasuredRow) -> str:
    """The reason why a method has no result."""
    return f"{row.status}: {row.message or 'no reason was recorded'}"


def settings(row: MeasuredRow) -> str:
    """`ratio=0.1, epochs=2`: the options that are not at their defaults."""
    return ", ".join(f"{key}={plain(value)}" for key, value in row.options.items())


def plain(value: Json) -> str:
    """A value of an option or of a recipe: text as it is, others as in JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def labels(rows: list[MeasuredRow]) -> list[str]:
    """A label per row: the method, with the settings added where the rows hold several configurations of it.

    Protocols, seeds and forget sets are never mixed silently: they join the label wherever the rows hold more than one.
    """
    shared = {name for name in LABEL_COLUMNS if len({str(row[name]) for row in rows}) < 2}
    variants = Counter(name for name, _ in {(row.method, settings(row)) for row in rows})
    return [_label(row, variants[row.method] > 1, shared) for row in rows]


def labels_by_id(rows: Sequence[MeasuredRow]) -> dict[str, str]:
    """The label of each edit that has a result, by the id of its rows."""
    return {row.id: label for row, label in zip(rows, labels(list(rows)), strict=True) if row.id and row.is_ok}


def _label(row: MeasuredRow, with_settings: bool, shared: set[str]) -> str:
    parts = [settings(row)] if with_settings and settings(row) else []
    parts += [f"{name} {row[name]}" for name in LABEL_COLUMNS if name not in shared]
    return " ".join([row.method, *([f"({'; '.join(parts)})"] if parts else [])])
