"""Formatting of values for readers: percent signs, counts, dashes and labels."""

from __future__ import annotations

import html
import json
from collections import Counter

from tinymem.report.tables.table import anchor
from tinymem.results.columns import LABEL_COLUMNS, RATES, Rate
from tinymem.results.row import MeasuredRow
from tinymem.results.share import Share
from tinymem.runtime.json import Json

DASH = "–"
ARROW = "→"


def number(value: float | None, digits: int = 1) -> str:
    """A plain number with thousands separated, or a dash.

    >>> number(1234.56), number(None)
    ('1,234.6', '–')
    """
    return DASH if value is None else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.8636)
    '86.4 %'
    """
    return DASH if share is None else f"{100 * share:.1f} %"


def percent_only(share: Share | None) -> str:
    """A share as a percentage, without its count."""
    return percent(share.share if share else None)


def fraction(share: Share | None) -> str:
    """`38/44`, or a dash where nothing was scored."""
    return f"{share.count}/{share.rows}" if share else DASH


def percent_of(share: Share | None) -> str:
    """A percentage with its count in parentheses.

    >>> percent_of(Share(38, 44))
    '86.4 % (38/44)'
    """
    return f"{percent_only(share)} ({fraction(share)})" if share and share.rows else DASH


def before_after(row: MeasuredRow, rate: Rate) -> tuple[Share | None, Share | None]:
    """One of the three rates of memorization before the edit and after it."""
    return row.share(RATES[rate], "before"), row.share(RATES[rate], "after")


def performance(row: MeasuredRow, value: float | None) -> str:
    """Accuracy as a percentage; perplexity (lower is better) as a plain number."""
    return percent(value) if row.is_share else number(value, 2)


def metrics(rows: list[MeasuredRow]) -> list[str]:
    """Performance metrics of the rows, in order of appearance; accuracy where no row records one."""
    return list(dict.fromkeys(row.performance_metric or "accuracy" for row in rows)) or ["accuracy"]


def settings(row: MeasuredRow) -> str:
    """`ratio=0.1, epochs=2`: the options that are not at their defaults."""
    return ", ".join(f"{key}={_plain(value)}" for key, value in row.options.items())


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def labels(rows: list[MeasuredRow]) -> list[str]:
    """A label per row: the method, with the settings added where the rows hold several configurations of it.

    Protocols, seeds and forget sets are never mixed silently: they join the label wherever the rows hold more than one.
    """
    shared = {name for name in LABEL_COLUMNS if len({str(row[name]) for row in rows}) < 2}
    variants = Counter(name for name, _ in {(row.method, settings(row)) for row in rows})
    return [_label(row, variants[row.method] > 1, shared) for row in rows]


def _label(row: MeasuredRow, with_settings: bool, shared: set[str]) -> str:
    parts = [settings(row)] if with_settings and settings(row) else []
    parts += [f"{name} {row[name]}" for name in LABEL_COLUMNS if name not in shared]
    return " ".join([row.method, *([f"({'; '.join(parts)})"] if parts else [])])


def escape(value: Json) -> str:
    """Text that is safe in an element and in a quoted attribute."""
    return html.escape(str(value), quote=True)


def anchors(rows: list[MeasuredRow]) -> list[str]:
    """A name per row that is unique on the page and safe in a URL: that of its source, numbered where it repeats."""
    found: dict[str, None] = {}
    for i, row in enumerate(rows, 1):
        name = anchor(row.source)
        found[name if name not in found else f"{name}-{i}"] = None
    return list(found)
