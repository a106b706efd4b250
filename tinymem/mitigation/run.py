"""Run a mitigation between two measurements and write the rows."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tinymem.errors import UserError, no_exit
from tinymem.evaluation.evaluator import Measurement
from tinymem.evaluation.probes import Flags
from tinymem.mitigation.ablation import ModelChanged, Refused
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.edit_size import edit_size
from tinymem.mitigation.method import MethodCall, apply, parse_call
from tinymem.mitigation.requests import before_and_after
from tinymem.mitigation.robustness.measure import tested
from tinymem.mitigation.subject import RowSplit, Subject, subject_of_corpus, subject_of_rows
from tinymem.models.checkpoint import not_finite
from tinymem.models.edited import round_as_stored
from tinymem.models.fingerprint import first_change
from tinymem.recipe.paper import FINETUNINGS
from tinymem.registry import plugin_of
from tinymem.results.columns import PROMPT_RATES, RATES
from tinymem.results.row import Identity, MitigationRow, Moment, Status
from tinymem.results.share import RateColumns
from tinymem.runtime.cost import Cost, measured
from tinymem.runtime.files import content_id
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.progress import Bar, Progress, progress_of

__all__ = ["Outcome", "RowSplit", "Subject", "mitigate", "row_id", "subject_of_corpus", "subject_of_rows"]

# Raised when code changes what a method does to a model or what is measured of it, so that stored rows are not taken for new ones.
MEASURING_EPOCH = 2
# The same of models whose weights have 16 bits alone: their fine-tunings and relearning round at random since 1.
EPOCH_OF_16_BITS = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of one method on one model: a row per artifact, and the edited model unless the method was refused or failed."""

    rows: list[MitigationRow]
    model: nn.Module | None
    error: Exception | None = None


def row_id(identity: Identity, call: MethodCall, forget: Json, *, rounded: bool = False) -> str:
    """Content id of one method's run on one model: a hash of all that decides its result, and of nothing else.

    `rounded`: a sweep's edit of a model in fp32 is rounded to the 16 bits that its folder has, as older sweeps did not.
    """
    what = {k: getattr(identity, k) for k in ("model_id", "corpus_sha256", "seed", "protocol", "device_type")}
    if identity.dtype not in (None, "float32"):
        what |= {"dtype": identity.dtype, "epoch_of_16_bits": EPOCH_OF_16_BITS}
    if rounded:
        what["rounded"] = True
    plugin = plugin_of(call.method.function)
    method: JsonObject = {"method": call.name, "config": call.config.as_json(), **({"plugin": plugin.sha256} if plugin else {})}
    files = {"files": content} if (content := call.config.files_content()) else {}
    if (computed := call.config.computed_in(identity.device_type, ours=identity.data is not None)) is not None:
        method["computed_in"] = computed
    if (changed := call.config.epoch_of_code()) > 0:
        method["epoch_of_code"] = changed
    return content_id({**what, **method, **files, "forget": forget, "epoch": MEASURING_EPOCH}, 16)


def mitigate(subject: Subject, name: str, options: Mapping[str, Json], *, row: str = "", progress: Progress | bool = True) -> Outcome:
    """Run one registered method with its options; errors of the method become rows, not exceptions.

    Args:
        subject: the model, which is left as it was, with its rows.
        name: of the method.
        options: those that are not at their defaults.
        row: the id of the result rows.
        progress: as of `tinymem.run`.

    Raises:
        UserError: an unknown method or option, or a model that was changed since the subject was made.
    """
    return run_call(subject, parse_call(name, options), row=row, progress=progress)


def run_call(subject: Subject, call: MethodCall, *, row: str = "", progress: Progress | bool = False) -> Outcome:
    """Run a method whose options are checked already; otherwise as `mitigate`."""
    progress = progress_of(progress)
    found: JsonObject = {}
    if changed := first_change(subject.fingerprint, subject.model):
        raise UserError(f"expected the model as it was measured, got {changed} changed since; load it again, and make its subject anew")
    try:
        with progress.stage(f"mitigate {call.name}") as bar, no_exit(call.name), measured(subject.device) as cost:
            edited = apply(call.method, subject.model, replace(subject.data, bar=bar, found=found), call.config)
    except Exception as error:
        return outcome_of(subject, call, error, row=row)
    with progress.stage(f"measure after {call.name}") as bar:
        return outcome_of(subject, call, edited, cost, row=row, found=found, bar=bar)


def outcome_of(
    subject: Subject,
    call: MethodCall,
    edited: nn.Module | Exception,
    cost: Cost | None = None,
    *,
    row: str = "",
    found: JsonObject | None = None,
    bar: Bar | None = None,
) -> Outcome:
    """Measure an edited model and make its rows; for an error instead of a model, rows with its message.

    `found`: what the method put into its data's; `bar` counts the batches of the measurement.
    """
    subject = subject if call.method.needs_forget else subject.blind
    blank = _Blank(subject, call, row, found or None)
    edited = _checked(subject, call, edited)
    if isinstance(edited, Refused):
        return Outcome([blank.without_result(kind, "refused", str(edited)) for kind in subject.splits], None, edited)
    if isinstance(edited, Exception):
        text = str(edited) if isinstance(edited, UserError) else "".join(traceback.format_exception_only(edited)).strip()
        return Outcome([blank.without_result(kind, "failed", text) for kind in subject.splits], None, edited)
    try:
        return Outcome(_rows(blank, subject.evaluator.measure(edited, bar), cost or Cost(), edited), edited)
    except Exception as error:  # the measurement failed, out of memory for instance
        return outcome_of(subject.shown or subject, call, error, row=row)


def chosen(config: MethodConfig) -> JsonObject:
    """The options that characterize a config: its ratio, and all that differ from their defaults."""
    values = config.as_json()
    return {f.name: values[f.name] for f in fields(config) if f.name == "ratio" or getattr(config, f.name) != f.default}


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    from tinymem import __version__

    return {"tinymem": __version__, "torch": torch.__version__.split("+")[0], "python": platform.python_version()}


def _checked(subject: Subject, call: MethodCall, edited: nn.Module | Exception) -> nn.Module | Exception:
    """The edited model, or the reason to refuse it."""
    if changed := first_change(subject.fingerprint, subject.model):
        return ModelChanged(f"expected {call.name} to leave the model it is given as it is, got {changed} changed; edit a deepcopy of it")
    return edited if isinstance(edited, Exception) else _check_finite(round_as_stored(edited, subject.dtypes))


def _check_finite(edited: nn.Module) -> nn.Module | UserError:
    if empty := next((name for name, parameter in edited.named_parameters() if parameter.is_meta), None):
        return UserError(f"expected an edited model with its weights, got '{empty}' without memory (device meta); return a deepcopy")
    if broken := not_finite(edited):
        return UserError(f"the edit left NaN or infinity in {len(broken)} parameters, '{broken[0]}' first; try a smaller step or ratio")
    return edited


@dataclass(frozen=True)
class _Blank:
    """The rows of one run of a method, without the columns that are measured after the edit."""

    subject: Subject
    call: MethodCall
    id: str
    found: JsonObject | None = None

    def row(self, kind: str) -> MitigationRow:
        """The row of an artifact with everything that was known before the edit."""
        subject, probe, split = self.subject, self.subject.evaluator.probes[kind], self.subject.splits[kind]
        evaluator = subject.evaluator
        noisy = bool(probe.prompt_changed.any())
        return MitigationRow(
            **vars(subject.identity),
            **memorized_columns(subject, kind, subject.before, "before"),
            id=self.id,
            method=self.call.name,
            unit=self.call.method.properties.unit,
            options=chosen(self.call.config),
            config=self.call.config.as_json(),
            versions=versions(),
            status="ok",
            artifact=kind,
            rows_scored=len(probe),
            rows_forget=int(split.forget.sum()),
            rows_holdout=int(split.holdout.sum()),
            rows_clean_prompt=int((~probe.prompt_changed).sum()) if noisy else None,
            rows_noised_prompt=int(probe.prompt_changed.sum()) if noisy else None,
            performance_metric=evaluator.performance_metric,
            **performance_columns(subject, subject.before, "before"),
            performance_tokens=subject.before.accuracy.rows if evaluator.performance_metric == "accuracy" else None,
            performance_ceiling=evaluator.ceiling.share if evaluator.ceiling else None,
            perplexity_before=subject.before.perplexity,
            request=subject.request.as_column(),
            metrics_before=subject.metrics_before[kind],
            optimizer_state=bool(subject.data.optimizer_state) if self.call.name in FINETUNINGS else None,
            computed_in=self.call.config.computed_in(subject.identity.device_type, ours=subject.identity.data is not None),
            found=self.found,
            plugin=plugin.sha256 if (plugin := plugin_of(self.call.method.function)) else None,
        )

    def without_result(self, kind: str, status: Status, message: str) -> MitigationRow:
        """The row of an artifact where the method was refused or failed."""
        return replace(self.row(kind), status=status, message=message)


def _rows(blank: _Blank, after: Measurement, cost: Cost, edited: nn.Module) -> list[MitigationRow]:
    subject = blank.subject
    size = edit_size(subject.model, edited) if subject.sized else None
    metrics_after = after.metrics(subject.groups, tolerant=True)
    started = time.perf_counter()
    robust = (subject.robustness_before, tested(subject.trial, edited)) if subject.trial else None
    seconds_robustness = time.perf_counter() - started if robust else None
    return [
        replace(
            blank.row(kind),
            **memorized_columns(subject, kind, after, "after"),
            **performance_columns(subject, after, "after"),
            perplexity_after=after.perplexity,
            seconds=cost.seconds,
            peak_mb=cost.peak_mb,
            edited_parameters=size.changed if size else None,
            edit_norm=size.norm if size else None,
            edited_by_layer=size.by_layer if size else None,
            metrics_after=metrics_after[kind],
            robustness=before_and_after(robust[0][kind], robust[1][kind]) if robust else None,
            seconds_robustness=seconds_robustness,
        )
        for kind in subject.splits
    ]


def performance_columns(subject: Subject, measurement: Measurement, moment: Moment) -> Any:
    """The columns of performance before or after the edit, by name; of an accuracy also how many tokens are right."""
    metric = subject.evaluator.performance_metric
    count = measurement.accuracy.count if metric == "accuracy" else None
    return {f"performance_{moment}": measurement.performance(metric), f"performance_count_{moment}": count}


def memorized_columns(subject: Subject, kind: str, measurement: Measurement, moment: Moment) -> Any:
    """The columns of an artifact's memorization before or after the edit: share and count of every rate, by name."""
    probe, split = subject.evaluator.probes[kind], subject.splits[kind]
    noisy = bool(probe.prompt_changed.any())
    rates: dict[RateColumns, Flags | None] = {
        RATES["all"]: np.ones(len(probe), dtype=bool),
        RATES["forget"]: split.forget,
        RATES["holdout"]: split.holdout,
        PROMPT_RATES["prompt clean in training"]: ~probe.prompt_changed if noisy else None,
        PROMPT_RATES["prompt noised in training"]: probe.prompt_changed if noisy else None,
    }
    found: JsonObject = {}
    for rate, among in rates.items():
        share = None if among is None else measurement.memorized_share(kind, among)
        found |= {f"{rate.share}_{moment}": share.share if share else None, f"{rate.count}_{moment}": share.count if share else None}
    classes = subject.evaluator.by_copies(measurement, kind)
    by_copies = {c: s.as_dict() for c, s in classes.items()} or None
    return {**found, f"memorized_by_copies_{moment}": by_copies}
