"""Run a mitigation between two measurements and write the rows."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Measurement
from tinymem.evaluation.probes import Flags
from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.edit_size import edit_size
from tinymem.mitigation.method import MethodCall, apply, parse_call
from tinymem.mitigation.requests import before_and_after, extra_columns
from tinymem.mitigation.robustness.measure import tested
from tinymem.mitigation.subject import RowSplit, Subject, subject_of_corpus, subject_of_rows
from tinymem.models.checkpoint import not_finite
from tinymem.recipe.recipe import CODE_EPOCH
from tinymem.runtime.cost import Cost, measured
from tinymem.runtime.files import content_id
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.progress import Bar, SilentBar

Row = dict[str, Any]
__all__ = ["Outcome", "Row", "RowSplit", "Subject", "mitigate", "row_id", "subject_of_corpus", "subject_of_rows"]


@dataclass(frozen=True)
class Outcome:
    """What one method did: a row per artifact, and the edited model unless the method was refused or failed."""

    rows: list[Row]
    model: nn.Module | None
    error: Exception | None = None


def row_id(identity: Row, call: MethodCall, forget: Any) -> str:
    """Content id of one method's run on one model: what decides its result, and nothing else."""
    what = {k: identity[k] for k in ("model_id", "corpus_sha256", "seed", "protocol", "device_type")}
    return content_id({**what, "method": call.name, "config": asdict(call.config), "forget": forget, "epoch": CODE_EPOCH}, 16)


def mitigate(subject: Subject, name: str, options: Mapping[str, Json], *, row: str = "", bar: Bar | None = None) -> Outcome:
    """Run one registered method with its options; errors of the method become rows, not exceptions.

    Args:
        subject: the model, which is left as it was, with its rows.
        name: of the method.
        options: those that are not at their defaults.
        row: the id of the result rows.
        bar: where progress is shown.

    Raises:
        UserError: an unknown method or option.
    """
    return run_call(subject, parse_call(name, options), row=row, bar=bar)


def run_call(subject: Subject, call: MethodCall, *, row: str = "", bar: Bar | None = None) -> Outcome:
    """Run a method whose options are checked already; otherwise as `mitigate`."""
    data = replace(subject.data, bar=bar or SilentBar())
    try:
        with measured(subject.device) as cost:
            edited = apply(call.method, subject.model, data, call.config)
    except Exception as error:
        return outcome_of(subject, call, error, row=row)
    return outcome_of(subject, call, edited, cost, row=row)


def outcome_of(subject: Subject, call: MethodCall, edited: nn.Module | Exception, cost: Cost | None = None, *, row: str = "") -> Outcome:
    """Measure an edited model and make its rows; for an error instead of a model, the rows that say so."""
    config, unit = call.config, call.method.properties.unit
    settings = {"method": call.name, "unit": unit, "options": chosen(config), "config": asdict(config)}
    shared = {"id": row, **subject.identity, **settings, "versions": versions()}
    if not isinstance(edited, Exception):
        edited = _check_finite(edited)
    if isinstance(edited, Refused):
        return _without_result(subject, shared, "refused", str(edited), edited)
    if isinstance(edited, Exception):
        text = str(edited) if isinstance(edited, UserError) else "".join(traceback.format_exception_only(edited)).strip()
        return _without_result(subject, shared, "failed", text, edited)
    after = subject.evaluator.measure(edited)
    return Outcome([{**shared, **r} for r in _rows(subject, after, cost or Cost(), edited)], edited)


def chosen(config: MethodConfig) -> JsonObject:
    """The options of a config that say something: its ratio, and whatever is not at its default."""
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name == "ratio" or getattr(config, f.name) != f.default}


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    from tinymem import __version__

    return {"tinymem": __version__, "torch": torch.__version__.split("+")[0], "python": platform.python_version()}


def _check_finite(edited: nn.Module) -> nn.Module | UserError:
    if broken := not_finite(edited):
        return UserError(f"the edit left NaN or infinity in {len(broken)} parameters, '{broken[0]}' first; try a smaller step or ratio")
    return edited


def _rows(subject: Subject, after: Measurement, cost: Cost, edited: nn.Module) -> list[Row]:
    size = edit_size(subject.model, edited)
    extra = {
        "status": "ok",
        "message": None,
        "performance_after": after.performance(subject.evaluator.performance_metric),
        "perplexity_after": after.perplexity,
        "seconds": cost.seconds,
        "peak_mb": cost.peak_mb,
        "edited_parameters": size.changed,
        "edit_norm": size.norm,
        "edited_by_layer": size.by_layer,
    }
    metrics_after = after.metrics(subject.groups)
    robust = tested(subject.trial, edited) if subject.trial else {}
    return [
        {
            **_before_columns(subject, kind),
            **_memorized_columns(subject, kind, after, "after"),
            **extra,
            **extra_columns(subject.request, subject.metrics_before[kind], metrics_after[kind]),
            **({"robustness": before_and_after(subject.robustness_before[kind], robust[kind])} if robust else {}),
        }
        for kind in subject.splits
    ]


def _without_result(subject: Subject, shared: Row, status: str, message: str, error: Exception) -> Outcome:
    empty = dict.fromkeys(
        ("performance_after", "perplexity_after", "seconds", "peak_mb", "edited_parameters", "edit_norm", "edited_by_layer")
    )
    rows = []
    for kind in subject.splits:
        nothing = dict.fromkeys(_memorized_columns(subject, kind, subject.before, "after"))
        extra = extra_columns(subject.request, subject.metrics_before[kind], None)
        rows.append({**shared, **_before_columns(subject, kind), **nothing, **empty, "status": status, "message": message, **extra})
    return Outcome(rows, None, error)


def _before_columns(subject: Subject, kind: str) -> Row:
    probe, split, evaluator = subject.evaluator.probes[kind], subject.splits[kind], subject.evaluator
    noisy = bool(probe.prompt_changed.any())
    return {
        "artifact": kind,
        "rows_scored": len(probe),
        "rows_forget": int(split.forget.sum()),
        "rows_holdout": int(split.holdout.sum()),
        "rows_clean_prompt": int((~probe.prompt_changed).sum()) if noisy else None,
        "rows_noised_prompt": int(probe.prompt_changed.sum()) if noisy else None,
        **_memorized_columns(subject, kind, subject.before, "before"),
        "performance_metric": evaluator.performance_metric,
        "performance_before": subject.before.performance(evaluator.performance_metric),
        "performance_ceiling": evaluator.ceiling.share if evaluator.ceiling else None,
        "perplexity_before": subject.before.perplexity,
    }


def _memorized_columns(subject: Subject, kind: str, measurement: Measurement, when: str) -> Row:
    probe, split = subject.evaluator.probes[kind], subject.splits[kind]

    def share(among: Flags) -> float | None:
        return measurement.memorized_share(kind, among).share

    noisy = bool(probe.prompt_changed.any())
    classes = subject.evaluator.by_copies(measurement, kind)
    return {
        **({f"memorized_by_copies_{when}": {c: s.as_dict() for c, s in classes.items()}} if classes else {}),
        f"memorized_{when}": measurement.memorized_share(kind).share,
        f"memorized_count_{when}": measurement.memorized_share(kind).count,
        f"forget_memorized_{when}": share(split.forget),
        f"holdout_memorized_{when}": share(split.holdout),
        f"memorized_clean_prompt_{when}": share(~probe.prompt_changed) if noisy else None,
        f"memorized_noised_prompt_{when}": share(probe.prompt_changed) if noisy else None,
    }
