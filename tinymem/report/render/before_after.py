"""Before and after in one cell: with counts, short for the terminal, and for methods that have no result."""

from __future__ import annotations

from tinymem.report.cells import ARROW, DASH, before_after, percent_of, percent_only, performance
from tinymem.results.columns import Rate
from tinymem.results.row import MeasuredRow


def change_with_counts(row: MeasuredRow, rate: Rate) -> str:
    """Change with counts: `86.4 % (38/44) → 2.3 % (1/44)`; the status replaces a missing value after."""
    before, after = before_after(row, rate)
    return join_change(percent_of(before), percent_of(after), row)


def performance_change(row: MeasuredRow) -> str:
    """`96.2 % → 95.1 %`, or plain numbers for perplexity."""
    return join_change(performance(row, row.performance_before), performance(row, row.performance_after), row)


def join_change(first: str, last: str, row: MeasuredRow) -> str:
    """Before and after with an arrow between them: one dash if nothing was scored, the status if the method has no result."""
    if not row.is_ok:
        return f"{first} {ARROW} {row.status}"
    return DASH if first == last == DASH else f"{first} {ARROW} {last}"


def short_change(row: MeasuredRow, rate: Rate, *, with_counts: bool = False, fold: bool = False) -> str:
    """Change in short: `86.4 → 2.3 (38 → 1)`, for tables whose heads give the unit and whose captions give the number of rows."""
    before, after = before_after(row, rate)
    change = join_change(percent_only(before), percent_only(after), row).replace(" %", "")
    if not with_counts or before is None:
        return change
    numbers = f"{before.count} {ARROW} {after.count}" if after else str(before.count)
    return f"{change}{chr(10) if fold else ' '}({numbers})"


def no_result(row: MeasuredRow, label: str) -> str:
    """The reason why a method has no result."""
    return f"{label} on {row.artifact}: {row.status}: {row.message or 'no reason was recorded'}"
