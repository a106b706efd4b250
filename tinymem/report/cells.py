"""Values as readers see them: one place for percent signs, counts, dashes and labels."""

from __future__ import annotations

import html
import json
from collections import Counter
from typing import Any

from tinymem.report.tables.table import anchor
from tinymem.results.row import source_id
from tinymem.results.run_folder import FORGET, Row

DASH = "–"
ARROW = "→"

# The three rates of memorization, never confused. Title -> (share before, share after, rows behind it).
RATES: dict[str, tuple[str, str, str]] = {
    "all": ("memorized_before", "memorized_after", "rows_scored"),
    "forget": ("forget_memorized_before", "forget_memorized_after", "rows_forget"),
    "holdout": ("holdout_memorized_before", "holdout_memorized_after", "rows_holdout"),
}
PARTS: dict[str, tuple[str, str]] = {
    "prompt clean in training": ("memorized_clean_prompt_before", "rows_clean_prompt"),
    "prompt noised in training": ("memorized_noised_prompt_before", "rows_noised_prompt"),
}
# What makes rows of one method and its options different experiments.
APART = ("protocol", "seed", *FORGET)


def number(value: Any, digits: int = 1) -> str:
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


def count_of(share: float | None, rows: int | None) -> int | None:
    """The count behind a share, where a row holds only the share and its base."""
    return None if share is None or rows is None else round(share * rows)


def fraction(count: int | None, rows: int | None) -> str:
    """`38/44`, or a dash where nothing was scored."""
    return DASH if count is None or rows is None else f"{count}/{rows}"


def percent_of(share: float | None, rows: int | None, count: int | None = None) -> str:
    """A percentage with its count beside it.

    >>> percent_of(38 / 44, 44)
    '86.4 % (38/44)'
    """
    if share is None:
        return DASH
    count = count_of(share, rows) if count is None else count
    return f"{percent(share)} ({fraction(count, rows)})"


def counts(row: Row, rate: str) -> tuple[int | None, int | None, int | None]:
    """Count before, count after and the rows behind one of the three `RATES`."""
    before, after, base = RATES[rate]
    rows = row.get(base)
    found = [count_of(row.get(before), rows), count_of(row.get(after), rows)]
    if rate == "all":  # the only rate whose counts are stored
        stored = (row.get("memorized_count_before"), row.get("memorized_count_after"))
        found = [new if new is not None else old for new, old in zip(stored, found, strict=True)]
    return found[0], found[1], rows


def performance(row: Row, value: float | None) -> str:
    """Accuracy as a percentage; perplexity (lower is better) as a plain number."""
    return percent(value) if is_share(row) else number(value, 2)


def is_share(row: Row) -> bool:
    """Whether the row's performance is a share in [0, 1]."""
    return str(row.get("performance_metric")) != "perplexity"


def metrics(rows: list[Row]) -> list[str]:
    """Performance metrics of the rows, in order of appearance; accuracy where nothing says."""
    return list(dict.fromkeys(row.get("performance_metric") or "accuracy" for row in rows)) or ["accuracy"]


def settings(row: Row) -> str:
    """`ratio=0.1, epochs=2`: the options that are not at their defaults, or the whole config of a row that does not tell."""
    return ", ".join(f"{key}={_plain(value)}" for key, value in (row.get("options", row.get("config")) or {}).items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def labels(rows: list[Row]) -> list[str]:
    """A label per row: the method, with the settings added where one name stands for several configurations.

    Protocols, seeds and forget sets are never mixed silently: they join the label wherever the rows hold more than one.
    """
    shared = {key for key in APART if len({row.get(key) for row in rows}) < 2}
    variants = Counter(name for name, _ in {(row["method"], settings(row)) for row in rows})
    return [_label(row, variants[row["method"]] > 1, shared) for row in rows]


def _label(row: Row, with_settings: bool, shared: set[str]) -> str:
    parts = [settings(row)] if with_settings and settings(row) else []
    parts += [f"{key} {row.get(key)}" for key in APART if key not in shared]
    return " ".join([str(row["method"]), *([f"({'; '.join(parts)})"] if parts else [])])


def escape(value: Any) -> str:
    """Text that is safe in an element and in a quoted attribute."""
    return html.escape(str(value), quote=True)


def anchors(rows: list[Row]) -> list[str]:
    """A name per row that is unique on the page and safe in a URL: that of its source, numbered where it comes again."""
    found: dict[str, None] = {}
    for i, row in enumerate(rows, 1):
        name = anchor(source_id(row))
        found[name if name not in found else f"{name}-{i}"] = None
    return list(found)
