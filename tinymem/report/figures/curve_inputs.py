"""Training curves for figures: the model's columns, and its measured epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinymem.report.configuration import width_of
from tinymem.results.collect import Unit, configuration_id
from tinymem.results.columns import ACCURACY
from tinymem.results.curve import CurvePoint
from tinymem.results.run_folder import RunRecord
from tinymem.results.share import Share


@dataclass(frozen=True)
class Curve:
    """The training of one model.

    Attributes:
        name: the run's.
        points: the measurements, by epoch.
        tokens: number of tokens that accuracy is measured on; None without a result row that says it.
    """

    name: str
    data: str | None
    data_size: int | None
    n_layer: int | None
    regularizer: str | None
    seed: int | None
    points: list[CurvePoint]
    tokens: int | None = None


def curves_of(records: Iterable[RunRecord]) -> list[Curve]:
    """The curves of the folders that have one, those of one configuration, corpus and seed once: the longest; none of counterfactuals."""
    found: dict[Unit, Curve] = {}
    for record in records:
        if record.recipe is not None and record.recipe.is_counterfactual:
            continue
        corpus = next((row.corpus_sha256 for row in record.rows if row.corpus_sha256), "")
        key = f"{configuration_id(record.name) or record.name} {corpus}", None, record.columns.seed
        if record.curve and (key not in found or len(record.curve) > len(found[key].points)):
            found[key] = _curve(record)
    return list(found.values())


def _curve(record: RunRecord) -> Curve:
    of, shares = record.columns, (row.share(ACCURACY, "before") for row in record.rows)
    tokens = next((share.rows for share in shares if share), None)
    return Curve(record.name, of.data, of.data_size, of.n_layer, of.regularizer, of.seed, record.curve, tokens)


def memorized_of(point: CurvePoint, artifact: str) -> dict[str, float]:
    """Percent memorized per duplication class (`all` rows where there is one class only)."""
    whole = {"all": point.memorized[artifact]} if artifact in point.memorized else {}
    classes = point.memorized_by_copies.get(artifact) or whole
    return {copies: 100 * share["share"] for copies, share in classes.items() if share["share"] is not None}


def performance_of(point: CurvePoint) -> tuple[str, float | None]:
    """Metric and value: accuracy in percent for math, perplexity for text."""
    if point.accuracy_ceiling is None:
        return "perplexity", point.perplexity
    return "accuracy", None if point.accuracy is None else 100 * point.accuracy


def performance_interval(point: CurvePoint, tokens: int | None) -> float | None:
    """Width of the 95 % interval of a point's accuracy, in percent; None of perplexity, or where the number of tokens is not known."""
    if tokens is None or point.accuracy is None or point.accuracy_ceiling is None:
        return None
    return width_of(Share(round(point.accuracy * tokens), tokens))
