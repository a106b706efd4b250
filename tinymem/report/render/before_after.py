"""Before and after in one cell: with counts, short for the terminal, and for methods that have no result."""

from __future__ import annotations

from tinymem.report.cells import ARROW, DASH, RATES, counts, percent, percent_of, performance
from tinymem.results.row import is_ok
from tinymem.results.run_folder import Row


def change_with_counts(row: Row, rate: str) -> str:
    """`86.4 % (38/44) → 2.3 % (1/44)`; the status stands where there is no value after."""
    before, after, _ = RATES[rate]
    count_before, count_after, rows = counts(row, rate)
    first, last = percent_of(row.get(before), rows, count_before), percent_of(row.get(after), rows, count_after)
    return join_change(first, last, row)


def performance_change(row: Row) -> str:
    """`96.2 % → 95.1 %`, or plain numbers for perplexity."""
    first, last = (performance(row, row.get(f"performance_{when}")) for when in ("before", "after"))
    return join_change(first, last, row)


def join_change(first: str, last: str, row: Row) -> str:
    """Before and after with an arrow between them: one dash if nothing was scored, the status if the method has no result."""
    if not is_ok(row):
        return f"{first} {ARROW} {row['status']}"
    return DASH if first == last == DASH else f"{first} {ARROW} {last}"


def short_change(row: Row, rate: str, *, with_counts: bool = False, fold: bool = False) -> str:
    """`86.4 → 2.3 (38 → 1)`: for tables whose column says that the numbers are percentages of the caption's rows."""
    before, after, _ = RATES[rate]
    change = join_change(percent(row.get(before)), percent(row.get(after)), row).replace(" %", "")
    first, last, _ = counts(row, rate)
    if not with_counts or first is None:
        return change
    numbers = f"{first} {ARROW} {last}" if last is not None else str(first)
    return f"{change}{chr(10) if fold else ' '}({numbers})"


def no_result(row: Row, label: str) -> str:
    """Why a method has no result."""
    return f"{label} on {row['artifact']}: {row['status']}: {row.get('message') or 'no reason was recorded'}"
