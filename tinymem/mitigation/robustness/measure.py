"""Tests of robustness: the edited model is trained a little more, rounded, and prompted differently, and measured again.

relearn-forget   a few steps on half of the forget rows (by seed): `relearned` is the share memorized of those, `rest` that of the other
                 half, which has none of their copies and was not trained on again, and `holdout` that of the holdout rows
relearn-retain   the same number of steps on unrelated rows: clean ones that were never planted
int8, int4       every matrix rounded (tinymem/mitigation/robustness/quantization.py)
longer, shorter, perturbed   other prompts for the same rows (tinymem/evaluation/prompts.py)

Each gives shares with counts over `all` scored rows, the `forget` rows and the `holdout` rows, and the model's performance. The unedited
model goes through the same tests, so every number has its counterpart. All run on copies; equal seeds give equal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tinymem.data.alike import alike_where_tested
from tinymem.data.planted import Indices
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.probes import Flags
from tinymem.evaluation.prompts import Change, changed_prompts
from tinymem.evaluation.view import Groups
from tinymem.mitigation.halves import first_part
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.robustness.quantization import quantized
from tinymem.mitigation.robustness.relearning import relearned
from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.robustness import Test
from tinymem.runtime.json import JsonObject


@dataclass(frozen=True)
class Trial:
    """The inputs of the tests of robustness, other than the model.

    Attributes:
        evaluator: measures every copy.
        data: the forget and the retain rows.
        forget: per artifact, the probe's rows among `data.forget`, which lists them one artifact after the other.
        groups: `forget` and `holdout`, as the metrics have them.
    """

    evaluator: Evaluator
    data: MitigationData
    forget: Mapping[str, Flags]
    groups: Groups
    settings: Robustness


def tested(trial: Trial, model: nn.Module) -> dict[str, dict[Test, JsonObject]]:
    """Results of the requested tests of a model, by artifact and test."""
    found: dict[str, dict[Test, JsonObject]] = {kind: {} for kind in trial.evaluator.probes}
    measured = trial.evaluator.measure(model)
    for test in trial.settings.tests:
        for kind, result in _TESTS[test](trial, measured).items():
            found[kind][test] = result
    return found


def _relearn_forget(trial: Trial, measured: Measurement) -> dict[str, JsonObject]:
    parts = {
        kind: _half(flags, alike_where_tested(trial.evaluator.probes[kind].rows), trial.data.seed + place)
        for place, (kind, flags) in enumerate(trial.forget.items())
    }
    chosen = np.concatenate([parts[kind][flags] for kind, flags in trial.forget.items()])
    rows = trial.data.forget.take(torch.from_numpy(np.flatnonzero(chosen)).to(trial.data.forget.ids.device))
    copy = relearned(measured.view.model, rows, trial.settings, trial.data.seed) if len(rows) else measured.view.model
    after = trial.evaluator.measure(copy)
    found = _shares(trial, after)
    for kind, part in parts.items():
        rest = trial.forget[kind] & ~part
        found[kind] |= {"relearned": after.memorized_share(kind, part).as_json(), "rest": after.memorized_share(kind, rest).as_json()}
    return found


def _half(flags: Flags, groups: Indices, seed: int) -> Flags:
    """A random half of the set flags, rounded down, without parting groups; none of a single group."""
    places = np.flatnonzero(flags)
    np.random.default_rng([seed, 3]).shuffle(places)
    half = np.zeros_like(flags)
    if len({*groups[places]}) > 1:
        half[places[first_part(groups[places], len(places) // 2)]] = True
    return half


def _relearn_retain(trial: Trial, measured: Measurement) -> dict[str, JsonObject]:
    copy = relearned(measured.view.model, trial.data.retain, trial.settings, trial.data.seed)
    return _shares(trial, trial.evaluator.measure(copy))


def _quantized(bits: int, trial: Trial, measured: Measurement) -> dict[str, JsonObject]:
    return _shares(trial, trial.evaluator.measure(quantized(measured.view.model, bits)))


def _prompted(change: Change, trial: Trial, measured: Measurement) -> dict[str, JsonObject]:
    settings, found = trial.settings, {}
    for kind, probe in trial.evaluator.probes.items():
        rows, kept = changed_prompts(
            trial.evaluator, kind, change, tokens=settings.tokens, replaced=settings.replaced, seed=trial.data.seed
        )
        flags = measured.view.memorized_among(rows)
        found[kind] = _by_group(trial, measured, kind, flags, probe.index[kept])
    return found


def _shares(trial: Trial, measured: Measurement) -> dict[str, JsonObject]:
    performance = measured.performance(trial.evaluator.performance_metric)
    probes = trial.evaluator.probes.items()
    return {kind: {**_by_group(trial, measured, kind, measured.memorized[kind], p.index), "performance": performance} for kind, p in probes}


def _by_group(trial: Trial, measured: Measurement, kind: str, flags: Flags, index: np.ndarray[Any, np.dtype[np.int64]]) -> JsonObject:
    return measured.view.grouped(trial.groups).by_group(kind, flags, index)


_TESTS: dict[Test, Callable[[Trial, Measurement], dict[str, JsonObject]]] = {
    "relearn-forget": _relearn_forget,
    "relearn-retain": _relearn_retain,
    "int8": partial(_quantized, 8),
    "int4": partial(_quantized, 4),
    "longer": partial(_prompted, "longer"),
    "shorter": partial(_prompted, "shorter"),
    "perturbed": partial(_prompted, "perturbed"),
}
