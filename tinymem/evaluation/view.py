"""A model as metrics see it: its outputs for the evaluator's forward plan, and the means to run further rows.

Groups: metrics of an artifact are taken over `all` its scored rows and, around a mitigation, over those that the
method is given to `forget` and the memorized ones in its `holdout`. A group is a mask over the artifact's planted rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError, no_exit
from tinymem.evaluation.forward import ForwardPlan, Key, TokenOutputs, TokenScores
from tinymem.evaluation.inputs import EvaluationInputs
from tinymem.evaluation.metric import METRICS, Metric
from tinymem.evaluation.probes import Flags, Probe, memorized_rows
from tinymem.results.share import Share
from tinymem.runtime.json import Json, JsonObject, plain_json

Groups = Mapping[str, Mapping[str, Flags]]


@dataclass(frozen=True)
class View:
    """One model under one evaluator, with the outputs of the one pass over all rows.

    Attributes:
        model: in evaluation mode.
        evaluator: with the corpus (None for a user's own rows), probes, test rows and protocol.
        plan: all rows of the pass.
        outputs: arg-max and loss of their queried tokens.
        groups: per artifact, masks over its planted rows by name; `all` is always there.
    """

    model: nn.Module
    evaluator: EvaluationInputs
    plan: ForwardPlan
    outputs: TokenOutputs
    groups: Groups = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    @cached_property
    def scores(self) -> _Scores:
        """Token scores by key, of the rows that the evaluator or a metric put on the plan: `view.scores["probe", kind]`."""
        return _Scores(self.plan, self.outputs)

    @cached_property
    def memorized(self) -> dict[str, Flags]:
        """Masks [n], by artifact, of the probe's rows that greedy decoding reproduces."""
        return {kind: self.memorized_on("probe", kind, probe) for kind, probe in self.evaluator.probes.items()}

    def grouped(self, groups: Groups) -> View:
        """This view with other groups of planted rows."""
        return replace(self, groups=groups)

    def probe(self, kind: str) -> Probe:
        """The test of memorization of an artifact."""
        return self.evaluator.probes[kind]

    def memorized_on(self, what: str, kind: str, probe: Probe) -> Flags:
        """Mask [N] of the memorized rows of a probe on the plan."""
        return np.asarray(self.scores[what, kind].memorized(probe.rows.window()).cpu())

    def memorized_among(self, rows: Rows) -> Flags:
        """Mask [N] of any other rows that greedy decoding reproduces, by one more pass."""
        evaluator = self.evaluator
        return np.asarray(memorized_rows(self.model, rows, batch_size=evaluator.batch_size, forbid=evaluator.forbid))

    def by_group(self, kind: str, values: npt.ArrayLike, index: npt.NDArray[np.int64] | None = None) -> JsonObject:
        """Shares of flags, or means of numbers, by group.

        Args:
            kind: the artifact.
            values: one per row: booleans, or numbers of which NaN are left out.
            index: the rows' indices among the planted rows; default: the rows of the artifact's probe.
        """
        numbers = np.asarray(values)
        masks = self.masks(kind, self.probe(kind).index if index is None else index)
        return {name: _summary(numbers[among]) for name, among in masks.items()}

    def masks(self, kind: str, index: npt.NDArray[np.int64]) -> dict[str, Flags]:
        """The groups as masks [n] over the planted rows of `index` [n]."""
        return {"all": np.ones(len(index), dtype=bool), **{name: among[index] for name, among in self.groups.get(kind, {}).items()}}

    def metrics(self, kind: str, names: tuple[str, ...], *, tolerant: bool = False) -> JsonObject:
        """The named metrics of an artifact; those of the model are the same for all artifacts, and computed once.

        Args:
            kind: the artifact.
            names: of the metrics.
            tolerant: whether a metric that fails is null, with a warning, instead of an error.

        Raises:
            UserError: a metric failed.
        """
        return {name: self._metric_or_null(METRICS.get(name), kind, tolerant) for name in names}

    def _metric_or_null(self, metric: Metric, kind: str, tolerant: bool) -> Json:
        try:
            with no_exit(f"the metric '{metric.name}'"):
                return self._metric(metric, kind)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            failure = f"the metric '{metric.name}' failed on {kind}: {type(error).__name__}: {error}"
            failed = error if isinstance(error, UserError) else UserError(failure)
            if not tolerant:
                raise failed from error
            warnings.warn(f"{failed}; stored as null", stacklevel=2)
            return None

    def _metric(self, metric: Metric, kind: str) -> Json:
        if metric.per == "artifact":
            return _stored(metric.function(self, kind), f"the metric '{metric.name}' of {kind}")
        if metric.name not in self._known:
            self._known[metric.name] = _stored(metric.function(self), f"the metric '{metric.name}'")
        return self._known[metric.name]

    @cached_property
    def _known(self) -> JsonObject:
        return {}


@dataclass(frozen=True)
class _Scores:
    plan: ForwardPlan
    outputs: TokenOutputs
    _found: dict[Key, TokenScores] = field(default_factory=dict)

    def __getitem__(self, key: Key) -> TokenScores:
        if key not in self._found:
            self._found[key] = self.plan.scores(self.outputs, key)
        return self._found[key]

    def __contains__(self, key: Key) -> bool:
        return key in self.plan.parts


def _stored(value: object, what: str) -> Json:
    """A metric's result as rows store it."""
    gaps: list[str] = []
    stored = plain_json(value, gaps.append)
    if gaps:
        place = f" at {gaps[0].lstrip('.')}" if gaps[0] else ""
        warnings.warn(f"{what} is NaN or infinite{place}; stored as null", stacklevel=2)
    return stored


def _summary(values: npt.NDArray[Any]) -> JsonObject:
    if values.dtype == np.bool_:
        return Share(int(values.sum()), len(values)).as_json()
    known = values[~np.isnan(values)].astype(np.float64)
    return {"mean": float(known.mean()) if len(known) else None, "rows": len(known)}
