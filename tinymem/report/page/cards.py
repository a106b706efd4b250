"""The numbers of the trained models, one card each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinymem.report.cells import fraction, interval, number, percent, percent_of, performance
from tinymem.results.collect import Results
from tinymem.results.columns import ACCURACY, PROMPT_RATES, RATES
from tinymem.results.row import MeasuredRow


@dataclass(frozen=True)
class Card:
    """A number with its small print, further numbers, and the URL of the row behind them."""

    title: str
    value: str
    small: str = ""
    parts: list[tuple[str, str]] = field(default_factory=list)
    link: str = ""


def cards_of(results: Results, links: Mapping[str, str]) -> list[Card]:
    """A card per artifact, and one for performance, of the trained model before any method."""
    first: dict[str, MeasuredRow] = {}
    for row in results.trained:
        first.setdefault(row.artifact, row)
    found = [_artifact(row, links.get(row.source, "")) for row in first.values()]
    return [*found, *(_performance(row, links.get(row.source, "")) for row in list(first.values())[:1])]


def _artifact(row: MeasuredRow, link: str) -> Card:
    whole = row.share(RATES["all"], "before")
    found = [(title, row.share(rate, "before")) for title, rate in PROMPT_RATES.items()]
    parts = [(title, percent_of(share)) for title, share in found if share and share.rows]
    small = f"({fraction(whole)}, {interval(whole)} %)" if whole and whole.rows else ""
    return Card(f"{row.artifact}: memorized", percent(whole.share if whole else None), small, parts, link)


def _performance(row: MeasuredRow, link: str) -> Card:
    parts = [("ceiling", percent(row.performance_ceiling))] if row.is_share else []
    if row.is_share and row.perplexity_before is not None:
        parts.append(("perplexity", number(row.perplexity_before, 2)))
    title = f"{row.performance_metric or 'accuracy'} on clean rows"
    tokens = row.share(ACCURACY, "before")
    small = f"({fraction(tokens)} tokens, {interval(tokens)} %)" if tokens else ""
    return Card(title, performance(row, row.performance_before), small, parts, link)
