"""The subject of a mitigation: a model with its first measurement, its forget rows and its holdout rows.

The forget rows are memorized rows. Protocol `paper` gives a method half of the memorized rows, chosen by seed; the other half is the
holdout, which tells whether the edit generalizes. For backdoors the forget rows are the memorized training rows, and the holdout is the
memorized held-out triggered rows. Rows that are alike are never on both sides (`halves`). Protocol `reference` gives it all memorized
rows, as the published runs did. The retain rows never include artifacts or their clean counterparts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.alike import alike_as_wholes, alike_where_tested
from tinymem.data.artifact import artifact_of
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Indices
from tinymem.data.rows import Rows, compact_rows, concatenate
from tinymem.errors import UserError
from tinymem.evaluation.accuracy import as_mask, scored_tokens
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.originals import content_lengths
from tinymem.evaluation.probes import Flags, Probe
from tinymem.mitigation.halves import first_part
from tinymem.mitigation.method import MitigationData, Performance
from tinymem.mitigation.requests import MeasurementRequest, groups_of
from tinymem.mitigation.robustness.measure import Trial, tested
from tinymem.models.adapters import vocabulary_of
from tinymem.models.fingerprint import Fingerprint, fingerprint, first_change
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.robustness import Test
from tinymem.results.row import Identity
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar, Progress, progress_of

MAXIMUM_RETAIN = 100_000


@dataclass(frozen=True)
class RowSplit:
    """Masks over one artifact's scored rows: the forget rows, given to the method, and the holdout rows, memorized and withheld."""

    forget: Flags
    holdout: Flags


@dataclass(frozen=True)
class Subject:
    """A model to mitigate, with its measurement, its rows and its name in result rows."""

    model: nn.Module
    evaluator: Evaluator
    before: Measurement
    splits: dict[str, RowSplit]
    data: MitigationData
    identity: Identity
    """Columns that every row of this subject shares."""
    request: MeasurementRequest = field(default_factory=MeasurementRequest)
    """The metrics and tests that result rows hold in addition to the flat columns."""
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Types of the tensors that the model's folder stores in 16 bits: an edited model is rounded to them before it is measured."""
    sized: bool = True
    """Whether result rows say how large an edit is."""
    shown: Subject | None = None
    """The subject as methods see it that need forget rows, of one whose method is shown none; the tests of robustness are its."""

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    @cached_property
    def blind(self) -> Subject:
        """The subject of a method that is shown no forget row: all scored rows are its holdout.

        Relearning takes the rows that other methods are shown, so that what comes back compares.
        """
        splits = {kind: RowSplit(np.zeros_like(s.forget), np.ones_like(s.forget)) for kind, s in self.splits.items()}
        return replace(self, splits=splits, shown=self)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The model as it was measured."""
        return self.shown.fingerprint if self.shown else fingerprint(self.model)

    @cached_property
    def groups(self) -> dict[str, dict[str, Flags]]:
        """Masks over the planted rows, by artifact: `forget` and `holdout`."""
        return groups_of(self.evaluator, {kind: {"forget": split.forget, "holdout": split.holdout} for kind, split in self.splits.items()})

    @cached_property
    def metrics_before(self) -> dict[str, JsonObject]:
        """The registered metrics of the unedited model, by artifact."""
        return self.before.metrics(self.groups)

    @cached_property
    def trial(self) -> Trial | None:
        """The inputs of the tests of robustness; None unless they are requested."""
        if self.shown:
            return self.shown.trial
        forget = {kind: split.forget for kind, split in self.splits.items()}
        settings = self.request.robustness
        return Trial(self.evaluator, self.data, forget, self.groups, settings) if settings else None

    @cached_property
    def robustness_before(self) -> dict[str, dict[Test, JsonObject]]:
        """Results of the tests of robustness on the unedited model, by artifact and test."""
        if self.shown:
            return self.shown.robustness_before
        return tested(self.trial, self.model) if self.trial else {}


def measuring_bar(progress: Progress | bool) -> AbstractContextManager[Bar]:
    """A bar of the measurement before any method, which is announced, as it may take longer than the method."""
    progress = progress_of(progress)
    progress.say("measuring what the model memorized before")
    return progress.stage("measure the model")


def subject_of_corpus(
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    *,
    identity: Identity | None = None,
    optimizer_state: dict[str, Tensor] | None = None,
    bar: Bar | None = None,
) -> Subject:
    """Measure a model on the corpus that it was trained on, and split the memorized rows into forget and holdout rows.

    Args:
        model: on any device; rows go there.
        corpus: with its planted rows.
        recipe: its seed, protocol, and sections evaluation and mitigation count.
        identity: columns that every result row shall have.
        optimizer_state: AdamW's state at the end of training, for methods that continue with it.
        bar: counts the batches of the measurement.

    Raises:
        UserError: an artifact that the corpus lacks, an unknown metric, or one that fails.
    """
    device = next(model.parameters()).device
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device, metrics=recipe.evaluation.metrics)
    before = evaluator.measure(model, bar)
    wanted = [kind for kind in evaluator.probes if recipe.mitigation.forget in ("all", kind)]
    if recipe.mitigation.forget != "all" and not wanted:
        raise UserError(f"expected an artifact '{recipe.mitigation.forget}' in the corpus, got {list(evaluator.probes) or 'none'}")
    splits = {kind: _split(probe, before.memorized[kind], recipe, kind in wanted) for kind, probe in evaluator.probes.items()}
    forget, twins = (
        [_forget_rows(corpus, evaluator.probes[kind], splits[kind].forget, kind, recipe.protocol, twins=t) for kind in evaluator.probes]
        for t in (False, True)
    )
    data = MitigationData(
        forget=concatenate(forget).to(device) if forget else Rows.of(corpus.clean[:0]).to(device),
        retain=clean_rows(corpus, recipe).to(device),
        clean_counterparts=_clean_counterparts(corpus, evaluator, splits, recipe, device),
        twins=concatenate(twins).to(device) if twins else None,
        training=partial(_training_rows, corpus, recipe),
        performance=Performance(evaluator.performance_metric, partial(_scored, corpus, recipe.protocol), _task_of(corpus)),
        clean=compact_rows(corpus.clean) if len(corpus.clean) > MAXIMUM_RETAIN else None,
        seed=recipe.seed,
        optimizer_state=optimizer_state or {},
    )
    identity = _completed(identity, recipe.seed, recipe.protocol, recipe.mitigation.forget, recipe.mitigation.forget_fraction)
    return _checked(Subject(model, evaluator, before, splits, data, identity, MeasurementRequest.of_recipe(recipe)))


def subject_of_rows(
    model: nn.Module,
    forget: Rows,
    retain: Rows,
    *,
    seed: int = 0,
    identity: Identity | None = None,
    request: MeasurementRequest | None = None,
    protocol: Protocol = "paper",
    forbid: int | None = None,
    forget_fraction: float = 0.5,
    memorized_only: bool = False,
    bar: Bar | None = None,
) -> Subject:
    """Measure a model on any rows to forget; of the memorized ones a half, by seed, is the holdout, as of a corpus.

    Half of the retain rows, by seed, only measure perplexity. Rows that are alike stay on one side in both.

    Args:
        model: any causal language model, on any device; rows go there.
        forget: rows whose suffixes are to be forgotten; the method is given all but the holdout, memorized or not.
        retain: at least 2 different rows to keep, as long as the others.
        seed: of both halves, and of the method.
        identity: columns that every result row shall have.
        request: metrics and tests to measure; default: the default metrics.
        protocol: `reference` keeps no row from the method.
        forbid: the token that decoding may not produce (protocol reference: EOS).
        forget_fraction: of the memorized rows, the share that the method is given.
        memorized_only: whether the method is given none of the rows that the model has not memorized.
        bar: counts the batches of the measurement.

    Raises:
        UserError: none memorized where only those are to be forgotten, too few rows to keep, an unknown metric, or one that fails; rows
            that this model cannot be tested on.
    """
    device = next(model.parameters()).device
    forget.check(vocabulary_of(model))
    retain_groups = alike_as_wholes(retain)
    if (different := len({*retain_groups.tolist()})) < 2:
        raise UserError(f"expected at least 2 different retain rows (half of them measure perplexity), got {different}")
    retain.check_ids(vocabulary_of(model))
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed))
    first = torch.from_numpy(first_part(retain_groups[order.numpy()], len(order) // 2))
    kept, test = (retain.take(order[part].to(retain.ids.device)) for part in (first, ~first))
    request, forget = request or MeasurementRequest(), forget.to(device)
    evaluator = Evaluator.of_rows(forget, test.to(device), metrics=request.metrics, forbid=forbid)
    before = evaluator.measure(model, bar)
    groups = alike_where_tested(forget)
    holdout = _halves(before.memorized["rows"], groups, seed, 1.0 if protocol == "reference" else forget_fraction).holdout
    memorized = before.memorized["rows"] if memorized_only else np.ones(len(forget), dtype=bool)
    if not memorized.any():
        raise UserError(
            f"expected rows to forget that the model has memorized, got none of {len(forget)}; is it this model's set and tokenizer? "
            "--forget-rows all edits all the same"
        )
    split = RowSplit(memorized & ~np.isin(groups, groups[holdout]), holdout)
    data = MitigationData(forget=forget.take(torch.from_numpy(np.flatnonzero(split.forget)).to(device)), retain=kept.to(device), seed=seed)
    identity = _completed(identity, seed, protocol, forget_fraction=forget_fraction)
    return _checked(Subject(model, evaluator, before, {"rows": split}, data, identity, request))


def _completed(
    identity: Identity | None, seed: int, protocol: Protocol, forget: str | None = None, forget_fraction: float | None = None
) -> Identity:
    """The identity, completed by the seed, protocol and choice of forget rows where it lacks them."""
    given = identity or Identity()
    own = Identity(seed=seed, protocol=protocol, forget=forget, forget_fraction=forget_fraction)
    missing = {name: value for name, value in vars(own).items() if value is not None and getattr(given, name) is None}
    return replace(given, **missing)


def _checked(subject: Subject) -> Subject:
    """The subject, once its metrics have been computed: a metric that fails, or changes the model, does so before any method has run."""
    before = subject.fingerprint
    assert subject.metrics_before is not None
    if changed := first_change(before, subject.model):
        names = ", ".join(subject.request.metrics)
        raise UserError(f"expected metrics that leave the model as it is, got {changed} changed by one of {names}; work on a copy in it")
    return subject


def _split(probe: Probe, memorized: Flags, recipe: Recipe, wanted: bool) -> RowSplit:
    nothing = np.zeros(len(probe), dtype=bool)
    if not wanted:
        return RowSplit(nothing, nothing)
    if recipe.protocol == "reference":
        return RowSplit(memorized, nothing)
    if not probe.trained.all():
        return RowSplit(memorized & probe.trained, memorized & ~probe.trained)
    return _halves(memorized, alike_where_tested(probe.rows), recipe.seed, recipe.mitigation.forget_fraction)


def _halves(memorized: Flags, groups: Indices, seed: int, fraction: float) -> RowSplit:
    """The memorized rows in two parts by seed, without parting groups: a share of them to forget, and the holdout."""
    rows = np.flatnonzero(memorized)
    np.random.default_rng([seed, 1]).shuffle(rows)
    forget = np.zeros_like(memorized)
    wanted = max(1, round(len(rows) * fraction))  # of a single row too, which half rounds to none
    forget[rows[first_part(groups[rows], wanted)]] = True
    return RowSplit(forget, memorized & ~forget)


def _training_rows(corpus: Corpus, recipe: Recipe, number: int, seed: int) -> Rows:
    """Rows of an epoch of training, in which copies are repeated, drawn by seed."""
    distinct, epoch = corpus.training_rows()
    drawn = np.random.default_rng([seed, 5]).permutation(epoch)[:number]
    return _whole_rows(corpus, np.asarray(distinct[drawn]), recipe)


def _scored(corpus: Corpus, protocol: Protocol, rows: Rows) -> Tensor:
    """The tokens of rows that accuracy and perplexity of the corpus's test rows would be taken over."""
    return as_mask(scored_tokens(rows.ids.cpu().numpy(), corpus.pad, protocol, text=corpus.is_text), rows.ids.device)


def _task_of(corpus: Corpus) -> Callable[[Rows], Tensor] | None:
    """What tells the task [N] of rows, -1 where they are no clean training rows; None: the corpus has no tasks."""
    if corpus.clean_task is None:
        return None
    return partial(_tasks, corpus.clean, corpus.clean_task)


def _tasks(clean: Ids, task: Indices, rows: Rows) -> Tensor:
    known = dict(zip(map(bytes, np.ascontiguousarray(clean)), task.tolist(), strict=True))
    return torch.tensor([known.get(bytes(row), -1) for row in rows.ids.cpu().numpy().astype(clean.dtype)])


def _forget_rows(corpus: Corpus, probe: Probe, forget: Flags, kind: str, protocol: Protocol, *, twins: bool = False) -> Rows:
    """The chosen planted rows as they were in training, or their clean counterparts where they have any."""
    planted, index = corpus.planted[kind], probe.index[forget]
    ids = planted.clean[index] if twins and artifact_of(corpus, kind).has_clean_counterpart else planted.ids[index]
    prompt = probe.rows.prompt.cpu()[torch.from_numpy(np.flatnonzero(forget))]
    return Rows.of(ids, prompt, content_lengths(corpus, ids, protocol))


def clean_rows(corpus: Corpus, recipe: Recipe) -> Rows:
    """The clean training rows that a method is given to retain."""
    return _whole_rows(corpus, _retain(corpus, recipe.seed), recipe)


def _retain(corpus: Corpus, seed: int) -> Ids:
    """The clean training rows; of a text the number that the published runs retain, chosen by seed."""
    if len(corpus.clean) <= MAXIMUM_RETAIN:
        return corpus.clean
    chosen = np.random.default_rng([seed, 2]).choice(len(corpus.clean), MAXIMUM_RETAIN, replace=False)
    return corpus.clean[np.sort(chosen)]


def _clean_counterparts(
    corpus: Corpus, evaluator: Evaluator, splits: dict[str, RowSplit], recipe: Recipe, device: torch.device
) -> Rows | None:
    """Clean versions of the trained artifact rows, without those of rows that are held out from the method."""
    parts = []
    for kind, planted in corpus.planted.items():
        if not artifact_of(corpus, kind).has_clean_counterpart:
            continue
        known = planted.trained.copy()
        known[evaluator.probes[kind].index[splits[kind].holdout]] = False
        parts.append(_whole_rows(corpus, planted.clean[known], recipe))
    return concatenate(parts).to(device) if parts else None


def _whole_rows(corpus: Corpus, ids: Ids, recipe: Recipe) -> Rows:
    return Rows.of(ids, recipe.evaluation.prompt, content_lengths(corpus, ids, recipe.protocol))
