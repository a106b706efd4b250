"""Training curves as figures see them: what the model was, and its measured epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tinymem.results.recipe_columns import facts_of
from tinymem.results.run_folder import Row, RunRecord


@dataclass(frozen=True)
class Curve:
    """The training of one model.

    Attributes:
        name: the run's.
        lines: the curve's lines (tinymem/training/curve.py), by epoch.
    """

    name: str
    data: str | None
    data_size: int | None
    n_layer: int | None
    regularizer: str | None
    seed: int | None
    lines: list[Row]


def curves_of(records: Iterable[RunRecord]) -> list[Curve]:
    """The curves of the folders that have one."""
    return [_curve(record) for record in records if record.curve]


def _curve(record: RunRecord) -> Curve:
    facts = facts_of(record.recipe)
    known: dict[str, Any] = {key: facts[key] for key in ("data", "data_size", "n_layer", "regularizer", "seed")}
    return Curve(record.name, **known, lines=record.curve)


def memorized_of(line: Row, artifact: str) -> dict[str, float]:
    """Percent memorized per duplication class (`all` rows where there is one class only)."""
    classes = (line.get("memorized_by_copies") or {}).get(artifact) or {"all": (line.get("memorized") or {}).get(artifact) or {}}
    return {copies: 100 * share["share"] for copies, share in classes.items() if share.get("share") is not None}


def performance_of(line: Row) -> tuple[str, float | None]:
    """Metric and value: accuracy in percent for math, perplexity for text."""
    if line.get("accuracy_ceiling") is None:
        return "perplexity", line.get("perplexity")
    return "accuracy", None if line.get("accuracy") is None else 100 * line["accuracy"]
