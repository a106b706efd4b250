"""The table of result rows: a line per method and artifact, with what is left after the edit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tinymem.report.cells import (
    DASH,
    interval,
    labels,
    little_data,
    metrics,
    number,
    percent,
    percent_of,
    performance,
    reason,
    settings,
    significant,
)
from tinymem.report.configuration import Configuration
from tinymem.report.selection import score
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.report.tables.trained import table_of_trained
from tinymem.report.threads import mixed_threads
from tinymem.results.columns import ACCURACY, PROMPT_RATES, RATES, Rate
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord
from tinymem.runtime.json import Json
from tinymem.runtime.words import counted

NOTHING = Cell(DASH)


def table_of_run(record: RunRecord) -> Table:
    """The results of one run."""
    return table_of_rows(record.rows, record.name) if record.rows else table_of_trained(record)


def tables_of_run(record: RunRecord) -> list[Table]:
    """The results of one run: those that its recipe asks for, and in a table of their own those of earlier recipes, if there are any."""
    asked, earlier = record.parts
    title = f"{record.name}: earlier recipes, on the same weights"
    return [table_of_run(asked), *([table_of_rows(earlier.rows, title)] if earlier.rows else [])]


def table_of_rows(rows: Sequence[MeasuredRow], title: str, models: Sequence[str] = ()) -> Table:
    """A line per row: percentages after the edit, their counts and intervals, and the method's seconds and memory.

    Args:
        rows: results, of one model or of several.
        title: of the table.
        models: name of each row's model, for a column; none where all rows are of one.
    """
    rows = list(rows)
    known, names, heads = _shared_before(rows), labels(rows), _columns(rows)
    best = set(map(id, _best(row for row in rows if row.artifact in known)))
    lines = [
        _line(row, label, model, id(row) in best, row.artifact not in known)
        for row, label, model in zip(rows, names, models or [""] * len(rows), strict=True)
    ]
    kept = [i for i, column in enumerate(heads) if models or column.title != "model"]
    columns = tuple(heads[i] for i in kept)
    return Table(
        "run",
        "run",
        title,
        columns,
        tuple(tuple(line[i] for i in kept) for line in lines),
        (*_notes(rows, names, known), *mixed_threads(rows)),
    )


def _columns(rows: list[MeasuredRow]) -> list[Column]:
    words = [Column(head, numeric=False) for head in ("method", "artifact", "model")]
    heads = ("memorized", "forget", "holdout", " / ".join(metrics(rows)), "seconds", "MB")
    return [*words, *map(Column, heads), Column("edited", optional=True)]


def _line(row: MeasuredRow, label: str, model: str, best: bool, before: bool) -> list[Cell]:
    words = [Cell(label, best=best), Cell(row.artifact), Cell(model)]
    if not row.is_ok:
        return [*words, Cell(row.status, sources=(row.source,)), *[NOTHING] * 6]
    rates = [_rate(row, name, best, before) for name in RATES]
    counted = [_number(row, value, number(value, 0)) for value in (row.peak_mb, row.edited_parameters)]
    cost = [_number(row, row.seconds, significant(row.seconds)), *counted]
    return [*words, *rates, _performance(row, best, before), *cost]


def _rate(row: MeasuredRow, name: Rate, best: bool, before: bool) -> Cell:
    """A rate of memorization after the edit, in percent; where lines differ in it, the rate before is small print."""
    first, last = (row.share(RATES[name], moment) for moment in ("before", "after"))
    if last is None or last.share is None:
        return NOTHING
    small = f"before {100 * first.share:.1f}" if before and first and first.share is not None else ""
    value = 100 * last.share
    return Cell(f"{value:.1f}", small, value, share=last, sources=(row.source,), best=best)


def _performance(row: MeasuredRow, best: bool, before: bool) -> Cell:
    if row.performance_after is None:
        return NOTHING
    factor, digits = (100, 1) if row.is_share else (1, 2)
    first = None if row.performance_before is None else factor * row.performance_before
    value = factor * row.performance_after
    small, share = f"before {number(first, digits)}" if before else "", row.share(ACCURACY, "after")
    return Cell(number(value, digits), small, value, share=share, of_tokens=True, sources=(row.source,), best=best)


def _number(row: MeasuredRow, value: float | None, text: str) -> Cell:
    return NOTHING if value is None else Cell(text, value=value, sources=(row.source,))


def candidate_score(row: MeasuredRow) -> float | None:
    """The row's score by the paper's A.3.5, lower is better; None without a result."""
    candidate = Configuration(row.method, settings(row), (row,)).candidate()
    return None if candidate is None else score(candidate, "reference" if row.protocol == "reference" else "paper")


def _best(rows: Iterable[MeasuredRow]) -> list[MeasuredRow]:
    """The row of each artifact with the lowest score; the rows of an artifact are of one model."""
    found: dict[str, tuple[float, MeasuredRow]] = {}
    for row in rows:
        value = candidate_score(row)
        if value is not None and (row.artifact not in found or value < found[row.artifact][0]):
            found[row.artifact] = value, row
    return [row for _, row in found.values()]


def _shared_before(rows: list[MeasuredRow]) -> dict[str, MeasuredRow]:
    """The first row of each artifact whose rows agree in all numbers before the edit, of those whose method was shown rows if there are.

    A method that was shown none has other forget and holdout rows, of one model all the same.
    """
    found: dict[str, list[MeasuredRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.is_blind):
        found[row.artifact].append(row)
    return {artifact: same[0] for artifact, same in found.items() if _agree(same)}


def _agree(rows: list[MeasuredRow]) -> bool:
    shown = {_before(row, *RATES) for row in rows if not row.is_blind}
    return len(shown) <= 1 and len({_before(row, "all") for row in rows}) == 1


def _before(row: MeasuredRow, *rates: Rate) -> tuple[float | None, ...]:
    shares = (row.share(RATES[rate], "before") for rate in rates)
    return (*(share.count if share else None for share in shares), row.rows_scored, row.performance_before)


# ---- notes --------------------------------------------------------------------------------------------------------------------------


def _notes(rows: list[MeasuredRow], names: list[str], known: dict[str, MeasuredRow]) -> Iterator[str]:
    if not rows:
        return
    share = ", accuracy" if any(row.is_share for row in rows) else ""
    sizes = {row.n_parameters for row in rows if row.n_parameters}
    size = f" The model has {sizes.pop():,} parameters." if len(sizes) == 1 else ""
    yield f"memorized, forget, holdout{share}: % after the edit; counts, and 95 % intervals by Wilson.{size}"
    for row in known.values():
        yield from _before_notes(row)
    for method in dict.fromkeys(row.method for row in rows if row.is_blind):
        yield f"{method} was shown no row to forget: all scored rows count as holdout."
    yield from _found_notes(rows, names)
    yield from little_data({row.artifact: row.rows_scored for row in known.values()}, len({row.seed for row in rows}))
    for row, name in zip(rows, names, strict=True):
        if not row.is_ok:
            yield f"{name} on {row.artifact}: {reason(row)}"


def _found_notes(rows: list[MeasuredRow], names: list[str]) -> Iterator[str]:
    """Yield what methods chose or measured on their way, a line a run."""
    said = {}
    for row, name in zip(rows, names, strict=True):
        parts = [f"{key.replace('_', ' ')} {_found_text(key, value)}" for key, value in (row.found or {}).items()]
        if parts:
            said[row.id or row.source] = f"{name} found: {', '.join(parts)}"
    yield from said.values()


def _found_text(key: str, value: Json) -> str:
    if isinstance(value, float) and key != "rho":
        return significant(value)
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _performance_before(row: MeasuredRow) -> str:
    """The performance with, of an accuracy, its interval, the number of tokens and the ceiling."""
    tokens = row.share(ACCURACY, "before")
    inside = [interval(tokens), f"{tokens.rows:,} tokens"] if tokens else []
    if row.is_share and row.performance_ceiling is not None:
        inside.append(f"ceiling without guessing {percent(row.performance_ceiling)}")
    text = performance(row, row.performance_before)
    return f"{text} ({', '.join(inside)})" if inside else text


def _counted(rows: int | None) -> str:
    return DASH if rows is None else counted(rows, "row")


def _before_notes(row: MeasuredRow) -> Iterator[str]:
    """Yield the numbers before the edit, and for noise the rate by whether the row's own prompt was noised."""
    metric = row.performance_metric or "accuracy"
    yield (
        f"{row.artifact} before: {percent_of(row.share(RATES['all'], 'before'))} memorized, {_counted(row.rows_forget)} to forget, "
        f"{number(row.rows_holdout, 0)} in the holdout, {metric} {_performance_before(row)}"
    )
    if row.rows_noised_prompt is not None:
        clean, noised = (percent_of(row.share(rate, "before")) for rate in PROMPT_RATES.values())
        yield f"{row.artifact} before: {clean} of the rows trained with a clean prompt, {noised} of those with a noised one"
