"""What a result row says beside its flat columns: registered metrics before and after, and whether it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.metric import chosen_metrics
from tinymem.evaluation.probes import Flags
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe

Row = dict[str, Any]


@dataclass(frozen=True)
class MeasurementRequest:
    """What is asked of every row: names of metrics, further prompt lengths, tests of robustness."""

    metrics: tuple[str, ...] = (DEFAULT,)
    ks: tuple[int, ...] = ()
    robustness: Robustness | None = None

    @staticmethod
    def of_recipe(recipe: Recipe) -> MeasurementRequest:
        """What a recipe asks."""
        return MeasurementRequest(recipe.evaluation.metrics, recipe.evaluation.ks, recipe.mitigation.robustness)

    def as_dict(self) -> Row:
        """For JSON, `default` and `all` resolved."""
        robustness = self.robustness.model_dump(mode="json") if self.robustness else None
        return {"metrics": [*chosen_metrics(self.metrics)], "ks": [*self.ks], "robustness": robustness}

    @staticmethod
    def from_dict(values: Row) -> MeasurementRequest:
        """What `as_dict` wrote."""
        robustness = Robustness(**values["robustness"]) if values["robustness"] else None
        return MeasurementRequest(tuple(values["metrics"]), tuple(values["ks"]), robustness)

    def answered_by(self, row: Row) -> bool:
        """Whether a stored row holds all this; one that was stored without saying so holds the default."""
        wanted, had = self.as_dict(), row.get("request")
        if had is None:
            return self == MeasurementRequest()
        enough = {*wanted["metrics"]} <= {*had["metrics"]} and {*wanted["ks"]} <= {*had["ks"]}
        return enough and wanted["robustness"] in (None, had["robustness"])


def groups_of(evaluator: Evaluator, chosen: Mapping[str, Mapping[str, Flags]]) -> dict[str, dict[str, Flags]]:
    """Groups of a probe's rows as masks over the planted rows, which is how metrics know them."""
    found: dict[str, dict[str, Flags]] = {}
    for kind, groups in chosen.items():
        index = evaluator.probes[kind].index
        planted = len(evaluator.corpus.planted[kind].ids) if evaluator.corpus else len(index)
        found[kind] = {name: np.zeros(planted, dtype=bool) for name in groups}
        for name, flags in groups.items():
            found[kind][name][index] = flags
    return found


def extra_columns(request: MeasurementRequest, before: Row, after: Row | None) -> Row:
    """The nested columns of one artifact's row."""
    return {"request": request.as_dict(), "metrics_before": before, "metrics_after": after}


def before_and_after(before: Mapping[Any, Row], after: Mapping[Any, Row]) -> dict[str, Row]:
    """Per test, the unedited model's numbers beside the edited one's."""
    return {test: {"before": before[test], "after": result} for test, result in after.items()}
