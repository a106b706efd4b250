"""The list and the pages of metrics: formula, unit, direction, range and source, from the metrics' docstrings."""

from __future__ import annotations

import textwrap

from tinymem.evaluation.metric import FIELDS, METRICS, Metric
from tinymem.runtime.streams import echo

WIDTH = 118
HEADS = ("metric", "of", "by default", *(name.lower() for name in FIELDS[:-1]))


def catalogue() -> list[list[str | bool]]:
    """A line of `HEADS` per registered metric, those of `default` first."""
    return [[m.name, m.per, m.default, *(" ".join(m.field(name).split()) for name in FIELDS[:-1])] for m in _metrics()]


def _metrics() -> list[Metric]:
    return sorted((METRICS.get(name) for name in METRICS.names()), key=lambda m: not m.default)


def print_catalogue() -> None:
    """All registered metrics, those of `default` first."""
    echo("\n\n".join(map(_described, _metrics())))
    echo("\nMetrics marked * are measured unless evaluation.metrics says otherwise. `tinymem metrics show NAME` says more.")


FACTS = ("part", "value")


def facts(name: str) -> list[list[str]]:
    """A line of `FACTS` per property, field and paragraph of one metric.

    Raises:
        UserError: no such metric.
    """
    metric = METRICS.get(name)
    found = [["metric", metric.name], ["of", metric.per], ["by default", "yes" if metric.default else "no"]]
    found += [[field.lower(), " ".join(metric.field(field).split())] for field in FIELDS]
    paragraphs = (part for part in metric.documentation.split("\n\n") if not part.startswith(f"{FIELDS[0]}:"))
    return [*found, *(["documentation", " ".join(part.split())] for part in paragraphs)]


def describe(name: str) -> str:
    """The whole documentation of one metric.

    Raises:
        UserError: no such metric.
    """
    metric = METRICS.get(name)
    return f"{_title(metric)}\n\n{metric.documentation}"


def _title(metric: Metric) -> str:
    of = "of each artifact" if metric.per == "artifact" else "of the model"
    needs = f"; needs {metric.requires[0]}: pip install 'tinymem[{metric.requires[1]}]'" if metric.requires else ""
    return f"{metric.name}{' *' if metric.default else ''}  ({of}{needs})"


def _described(metric: Metric) -> str:
    lines = [_title(metric)]
    for name in FIELDS[:-1]:
        first, rest = f"  {name.lower():<10}", " " * 12
        lines += textwrap.wrap(metric.field(name), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return "\n".join(lines)
