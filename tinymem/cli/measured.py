"""The table of `tinymem evaluate`: a line per number, of the model and of each artifact. Groups of rows are in its JSON alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinymem.report.cells import DASH, percent, significant
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.share import Share

if TYPE_CHECKING:
    from tinymem.runs.evaluate import CheckpointMeasurement
    from tinymem.runtime.json import Json, JsonObject

HEADS = (Column("of", numeric=False), Column("metric", numeric=False), Column("value"))
Named = tuple[str, "Json"]


def table_of_measurement(found: CheckpointMeasurement) -> Table:
    """What was measured, all rows of an artifact together."""
    rows = [("model", *line) for line in _of_model(found)] + [
        (kind, *line) for kind in found.memorized for line in _of_artifact(found, kind)
    ]
    given = "prompts of their own" if found.prompt is None else f"prompt {found.prompt}"
    left_out = "" if found.rows_left_out is None else f"; {found.rows_left_out} rows left out"
    notes = (
        f"protocol {found.protocol}, {given}, match {found.match}, on {found.device}{left_out}",
        "Shares: counts, and 95 % intervals by Wilson. --json has every group of rows.",
    )
    cells = tuple((Cell(of, value=of), Cell(name, value=name), _cell(value)) for of, name, value in rows)
    return Table("measured", "measured", found.checkpoint, HEADS, cells, notes)


def _of_model(found: CheckpointMeasurement) -> Iterator[Named]:
    first: JsonObject = next(iter(found.metrics.values()), {})
    measured: dict[str, Json] = {"accuracy": found.accuracy, "accuracy_ceiling": found.accuracy_ceiling}
    for name, value in measured.items():
        if value is not None and name not in first:
            yield name, {"share": value}
    if "perplexity" not in first and found.perplexity is not None:
        yield "perplexity", found.perplexity
    for name, value in first.items():
        if _of_all(name):
            yield from _flat(name, value)


def _of_artifact(found: CheckpointMeasurement, kind: str) -> Iterator[Named]:
    share = found.memorized[kind]
    yield "memorized", {"share": share["share"], "count": share["count"], "rows": share["rows"]}
    for name, value in found.metrics.get(kind, {}).items():
        if not _of_all(name):
            yield from (line for line in _flat(name, value) if line[0] != f"memorized, k={found.prompt}")


def _of_all(name: str) -> bool:
    """Whether a metric is of the model, and so the same for every artifact."""
    from tinymem.evaluation.metric import METRICS

    return METRICS.get(name).per == "model"


def _flat(name: str, value: Json) -> Iterator[Named]:
    """The numbers of a metric, those of all rows together: `membership, loss, auc` and its value."""
    if not isinstance(value, dict) or "share" in value or "mean" in value:
        yield name, value
        return
    for key, inner in ({"all": value["all"]} if "all" in value else value).items():
        yield from _flat(name if key == "all" else f"{name}, {key}", inner)


def _cell(value: Json) -> Cell:
    if isinstance(value, dict) and "share" in value:
        share, count, of = (value.get(key) for key in ("share", "count", "rows" if "rows" in value else "tokens"))
        counted = Share(count, of) if isinstance(count, int) and isinstance(of, int) else None
        return Cell(percent(share), value=share, share=counted) if isinstance(share, float) else Cell(DASH)
    if isinstance(value, dict):
        return Cell(_text(value["mean"]), f"mean of {value['rows']:,} rows", _plain(value["mean"]))
    return Cell(_text(value), value=_plain(value))


def _text(value: Json) -> str:
    return f"{value:,}" if isinstance(value, int) else significant(value) if isinstance(value, float) else DASH


def _plain(value: Json) -> float | int | None:
    return value if isinstance(value, int | float) else None
