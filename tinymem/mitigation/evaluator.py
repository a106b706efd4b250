"""Run a mitigation between two measurements and write the rows.

The forget set is the memorised rows. Protocol `paper` shows a method half of them, chosen by seed, and keeps the other half to see whether
the edit generalises; for backdoors it sees the memorised training rows, and the memorised held-out triggered rows are kept. Protocol
`reference` shows it all memorised rows, as the published runs did. The retain set never holds artifacts or their twins.
"""

from __future__ import annotations

import platform
import traceback
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.corpus import TWINLESS, Corpus
from tinymem.data.math import Ids
from tinymem.data.rows import Rows, concatenate
from tinymem.errors import UserError
from tinymem.evaluation.measure import Evaluator, Measurement
from tinymem.evaluation.memorization import Flags, Probe
from tinymem.files import content_id
from tinymem.mitigation.edit_size import edit_size
from tinymem.mitigation.frame import UNLEARNERS, MitigationData, Refused, Unlearner, apply, parse_config
from tinymem.mitigation.memory import Cost, measured
from tinymem.progress import Bar, SilentBar
from tinymem.recipe import CODE_EPOCH, Recipe

Row = dict[str, Any]
MAXIMUM_RETAIN = 100_000


@dataclass(frozen=True)
class Seen:
    """Of one artifact's scored rows: those the method sees, and memorised ones kept from it."""

    forget: Flags
    heldout: Flags


@dataclass(frozen=True)
class Subject:
    """A model to mitigate, with its measurement, its rows and its name in result rows."""

    model: nn.Module
    evaluator: Evaluator
    before: Measurement
    seen: dict[str, Seen]
    data: MitigationData
    identity: Row
    """Columns that every row of this subject shares: run, model_id, corpus_sha256, protocol, device, ..."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Outcome:
    """What one method did: a row per artifact, and the edited model unless the method was refused or failed."""

    rows: list[Row]
    model: nn.Module | None
    error: Exception | None = None


def subject_of_corpus(
    model: nn.Module, corpus: Corpus, recipe: Recipe, *, identity: Row | None = None, optimizer_state: dict[str, Tensor] | None = None
) -> Subject:
    """A model on the corpus that it was trained on."""
    device = next(model.parameters()).device
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device)
    before = evaluator.measure(model)
    wanted = [kind for kind in evaluator.probes if recipe.mitigation.forget in ("all", kind)]
    if recipe.mitigation.forget != "all" and not wanted:
        raise UserError(f"expected an artifact '{recipe.mitigation.forget}' in the corpus, got {list(evaluator.probes) or 'none'}")
    seen = {kind: _see(probe, before.elicited[kind], recipe, kind in wanted) for kind, probe in evaluator.probes.items()}
    prompt = recipe.evaluation.prompt
    forget = [_forget_rows(corpus, evaluator.probes[kind], seen[kind].forget, kind) for kind in evaluator.probes]
    data = MitigationData(
        forget=concatenate(forget).to(device) if forget else Rows.of(corpus.clean[:0]).to(device),
        retain=_whole_rows(_retain(corpus, recipe.seed), corpus.pad, prompt).to(device),
        twins=_twins(corpus, evaluator, seen, prompt, device),
        seed=recipe.seed,
        optimizer_state=optimizer_state or {},
    )
    identity = {"seed": recipe.seed, "protocol": recipe.protocol, **(identity or {})}
    return Subject(model, evaluator, before, seen, data, identity)


def subject_of_rows(model: nn.Module, forget: Rows, retain: Rows, *, seed: int = 0, identity: Row | None = None) -> Subject:
    """A model with any rows to forget, all shown to the method; half of the retain rows, by seed, only measure perplexity."""
    device = next(model.parameters()).device
    if len(retain) < 2:
        raise UserError(f"expected at least 2 retain rows (half of them measure perplexity), got {len(retain)}")
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed))
    kept, test = retain.take(order[: len(order) // 2]), retain.take(order[len(order) // 2 :])
    evaluator = Evaluator.of_rows(forget.to(device), test.to(device))
    everything = np.ones(len(forget), dtype=bool)
    data = MitigationData(forget=forget.to(device), retain=kept.to(device), seed=seed)
    identity = {"seed": seed, "protocol": "paper", **(identity or {})}
    return Subject(model, evaluator, evaluator.measure(model), {"rows": Seen(everything, ~everything)}, data, identity)


def row_id(identity: Row, method: Unlearner, config: Any, forget: Any) -> str:
    """Content id of one method's run on one model: what decides its result, and nothing else."""
    what = {k: identity[k] for k in ("model_id", "corpus_sha256", "seed", "protocol", "device_type")}
    return content_id({**what, "method": method.name, "config": asdict(config), "forget": forget, "epoch": CODE_EPOCH}, 16)


def mitigate(subject: Subject, name: str, options: dict[str, Any], *, row: str = "", bar: Bar | None = None) -> Outcome:
    """Run one registered method with its options; errors of the method become rows, not exceptions.

    Raises:
        UserError: an unknown method or option.
    """
    method = UNLEARNERS.get(name)
    config = parse_config(method, options)
    data = MitigationData(**{**vars(subject.data), "bar": bar or SilentBar()})
    try:
        with measured(subject.device) as cost:
            edited = apply(method, subject.model, data, config)
    except Exception as error:
        return outcome_of(subject, method, config, error, row=row)
    return outcome_of(subject, method, config, edited, cost, row=row)


def outcome_of(
    subject: Subject, method: Unlearner, config: Any, edited: nn.Module | Exception, cost: Cost | None = None, *, row: str = ""
) -> Outcome:
    """Measure an edited model and make its rows; for an error instead of a model, the rows that say so."""
    settings = {"method": method.name, "unit": method.properties.unit, "options": chosen(config), "config": asdict(config)}
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


def chosen(config: Any) -> Row:
    """The options of a config that say something: its ratio, and whatever is not at its default."""
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name == "ratio" or getattr(config, f.name) != f.default}


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    from tinymem import __version__

    return {"tinymem": __version__, "torch": torch.__version__.split("+")[0], "python": platform.python_version()}


def _check_finite(edited: nn.Module) -> nn.Module | UserError:
    broken = [name for name, p in edited.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        return UserError(f"the edit left NaN or infinity in {len(broken)} parameters, '{broken[0]}' first; try a smaller step or ratio")
    return edited


def _see(probe: Probe, memorised: Flags, recipe: Recipe, wanted: bool) -> Seen:
    nothing = np.zeros(len(probe), dtype=bool)
    if not wanted:
        return Seen(nothing, nothing)
    if recipe.protocol == "reference":
        return Seen(memorised, nothing)
    if not probe.trained.all():
        return Seen(memorised & probe.trained, memorised & ~probe.trained)
    rows = np.flatnonzero(memorised)
    np.random.default_rng([recipe.seed, 1]).shuffle(rows)
    forget = nothing.copy()
    forget[rows[: round(len(rows) * recipe.mitigation.forget_fraction)]] = True
    return Seen(forget, memorised & ~forget)


def _forget_rows(corpus: Corpus, probe: Probe, forget: Flags, kind: str) -> Rows:
    """The chosen planted rows as they stood in training."""
    ids = corpus.planted[kind].ids[probe.index[forget]]
    prompt = probe.rows.prompt.cpu()[torch.from_numpy(np.flatnonzero(forget))]
    return Rows.of(ids, prompt, _ends(ids, corpus.pad))


def _retain(corpus: Corpus, seed: int) -> Ids:
    """The clean training rows, or so many of them, by seed, as the published runs keep of a text."""
    if len(corpus.clean) <= MAXIMUM_RETAIN:
        return corpus.clean
    chosen = np.random.default_rng([seed, 2]).choice(len(corpus.clean), MAXIMUM_RETAIN, replace=False)
    return corpus.clean[np.sort(chosen)]


def _twins(corpus: Corpus, evaluator: Evaluator, seen: dict[str, Seen], prompt: int, device: torch.device) -> Rows | None:
    """Clean versions of the trained artifact rows, without those of rows that are held out from the method."""
    parts = []
    for kind, planted in corpus.planted.items():
        if kind in TWINLESS:
            continue
        known = planted.trained.copy()
        known[evaluator.probes[kind].index[seen[kind].heldout]] = False
        parts.append(_whole_rows(planted.clean[known], corpus.pad, prompt))
    return concatenate(parts).to(device) if parts else None


def _whole_rows(ids: Ids, pad: int, prompt: int) -> Rows:
    return Rows.of(ids, prompt, _ends(ids, pad))


def _ends(ids: Ids, pad: int) -> Tensor:
    """Length of each row without its padding."""
    content = ids != pad
    return torch.from_numpy(np.where(content.any(1), ids.shape[1] - np.argmax(content[:, ::-1], axis=1), 0))


def _rows(subject: Subject, after: Measurement, cost: Cost, edited: nn.Module) -> list[Row]:
    size = edit_size(subject.model, edited)
    extra = {
        "status": "ok",
        "message": None,
        "performance_after": after.performance(subject.evaluator.metric),
        "perplexity_after": after.perplexity,
        "seconds": cost.seconds,
        "peak_mb": cost.peak_mb,
        "edited_parameters": size.changed,
        "edit_norm": size.norm,
        "edited_by_layer": size.by_layer,
    }
    return [{**_before_columns(subject, kind), **_memorised_columns(subject, kind, after, "after"), **extra} for kind in subject.seen]


def _without_result(subject: Subject, shared: Row, status: str, message: str, error: Exception) -> Outcome:
    empty = dict.fromkeys(
        ("performance_after", "perplexity_after", "seconds", "peak_mb", "edited_parameters", "edit_norm", "edited_by_layer")
    )
    rows = []
    for kind in subject.seen:
        nothing = dict.fromkeys(_memorised_columns(subject, kind, subject.before, "after"))
        rows.append({**shared, **_before_columns(subject, kind), **nothing, **empty, "status": status, "message": message})
    return Outcome(rows, None, error)


def _before_columns(subject: Subject, kind: str) -> Row:
    probe, seen, evaluator = subject.evaluator.probes[kind], subject.seen[kind], subject.evaluator
    noisy = bool(probe.prompt_changed.any())
    return {
        "artifact": kind,
        "rows_scored": len(probe),
        "rows_forget": int(seen.forget.sum()),
        "rows_heldout": int(seen.heldout.sum()),
        "rows_clean_prompt": int((~probe.prompt_changed).sum()) if noisy else None,
        "rows_noised_prompt": int(probe.prompt_changed.sum()) if noisy else None,
        **_memorised_columns(subject, kind, subject.before, "before"),
        "performance_metric": evaluator.metric,
        "performance_before": subject.before.performance(evaluator.metric),
        "performance_ceiling": evaluator.ceiling.share if evaluator.ceiling else None,
        "perplexity_before": subject.before.perplexity,
    }


def _memorised_columns(subject: Subject, kind: str, measurement: Measurement, when: str) -> Row:
    probe, seen = subject.evaluator.probes[kind], subject.seen[kind]

    def share(among: Flags) -> float | None:
        return measurement.memorised(kind, among).share

    noisy = bool(probe.prompt_changed.any())
    classes = subject.evaluator.by_copies(measurement, kind)
    return {
        **({f"memorised_by_copies_{when}": {c: s.as_dict() for c, s in classes.items()}} if classes else {}),
        f"memorised_{when}": measurement.memorised(kind).share,
        f"memorised_count_{when}": measurement.memorised(kind).count,
        f"forget_memorised_{when}": share(seen.forget),
        f"heldout_memorised_{when}": share(seen.heldout),
        f"memorised_clean_prompt_{when}": share(~probe.prompt_changed) if noisy else None,
        f"memorised_noised_prompt_{when}": share(probe.prompt_changed) if noisy else None,
    }
