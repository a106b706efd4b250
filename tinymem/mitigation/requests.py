"""Measurement requests: the metrics, further prompt lengths and tests of robustness to be measured around a mitigation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.metric import chosen_metrics
from tinymem.evaluation.probes import Flags
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.robustness import Test
from tinymem.results.nested import BeforeAfter, RequestColumn
from tinymem.runtime.json import JsonObject


@dataclass(frozen=True)
class MeasurementRequest:
    """Names of metrics, further prompt lengths and tests of robustness that every row is to hold."""

    metrics: tuple[str, ...] = (DEFAULT,)
    ks: tuple[int, ...] = ()
    robustness: Robustness | None = None

    @staticmethod
    def of_recipe(recipe: Recipe) -> MeasurementRequest:
        """The request in a recipe's sections evaluation and mitigation."""
        return MeasurementRequest(recipe.evaluation.metrics, recipe.evaluation.ks, recipe.mitigation.robustness)

    def as_column(self) -> RequestColumn:
        """The request as stored in a result row, `default` and `all` resolved."""
        robustness = self.robustness.model_dump(mode="json") if self.robustness else None
        return {"metrics": [*chosen_metrics(self.metrics)], "ks": [*self.ks], "robustness": robustness}

    def answered_by(self, stored: RequestColumn | None) -> bool:
        """Whether a row whose request was `stored` holds everything in this one; a row without a request holds the default."""
        return self == MeasurementRequest() if stored is None else covers(stored, self.as_column())


def covers(stored: RequestColumn, wanted: RequestColumn) -> bool:
    """Whether a row whose request was `stored` holds everything that is `wanted`."""
    enough = {*wanted["metrics"]} <= {*stored["metrics"]} and {*wanted["ks"]} <= {*stored["ks"]}
    return enough and wanted["robustness"] in (None, stored["robustness"])


def groups_of(evaluator: Evaluator, chosen: Mapping[str, Mapping[str, Flags]]) -> dict[str, dict[str, Flags]]:
    """Groups of a probe's rows as masks [n] over the n planted rows, the form that metrics use."""
    found: dict[str, dict[str, Flags]] = {}
    for kind, groups in chosen.items():
        index = evaluator.probes[kind].index
        planted = len(evaluator.corpus.planted[kind].ids) if evaluator.corpus else len(index)
        found[kind] = {name: np.zeros(planted, dtype=bool) for name in groups}
        for name, flags in groups.items():
            found[kind][name][index] = flags
    return found


def before_and_after(before: Mapping[Test, JsonObject], after: Mapping[Test, JsonObject]) -> dict[str, BeforeAfter]:
    """Numbers of the unedited and of the edited model, by test."""
    return {test: {"before": before[test], "after": result} for test, result in after.items()}
