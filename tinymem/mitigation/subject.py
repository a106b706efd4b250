"""What a method is run on: a model with its first measurement, the rows that the method sees, and those kept from it.

The forget set is the memorised rows. Protocol `paper` shows a method half of them, chosen by seed, and keeps the other half to see whether
the edit generalises; for backdoors it sees the memorised training rows, and the memorised held-out triggered rows are kept. Protocol
`reference` shows it all memorised rows, as the published runs did. The retain set never holds artifacts or their twins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.corpus import TWINLESS, Corpus
from tinymem.data.math.sequences import Ids
from tinymem.data.rows import Rows, compact_rows, concatenate
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.evaluation.originals import content_lengths
from tinymem.evaluation.probes import Flags, Probe
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.requests import Asked, groups_of
from tinymem.mitigation.robustness.measure import Found, Trial, tested
from tinymem.recipe.recipe import Recipe

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
    asked: Asked = field(default_factory=Asked)
    """What rows say beside the flat columns."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def groups(self) -> dict[str, dict[str, Flags]]:
        """Per artifact, the planted rows that the method sees and the memorised ones that it does not."""
        return groups_of(self.evaluator, {kind: {"seen": seen.forget, "unseen": seen.heldout} for kind, seen in self.seen.items()})

    @cached_property
    def metrics_before(self) -> dict[str, dict[str, Any]]:
        """The registered metrics of the unedited model, by artifact."""
        return self.before.metrics(self.groups)

    @cached_property
    def trial(self) -> Trial | None:
        """How to test whether what a method removed comes back; None unless asked."""
        forget = {kind: seen.forget for kind, seen in self.seen.items()}
        settings = self.asked.robustness
        return Trial(self.evaluator, self.data, forget, self.groups, settings) if settings else None

    @cached_property
    def robustness_before(self) -> dict[str, dict[Any, Found]]:
        """The same tests of the unedited model, by artifact and test."""
        return tested(self.trial, self.model) if self.trial else {}


def subject_of_corpus(
    model: nn.Module, corpus: Corpus, recipe: Recipe, *, identity: Row | None = None, optimizer_state: dict[str, Tensor] | None = None
) -> Subject:
    """Measure a model on the corpus that it was trained on, and part its rows into those that a method sees and those kept from it.

    Args:
        model: on any device; rows go there.
        corpus: with its planted rows.
        recipe: its seed, protocol, and sections evaluation and mitigation count.
        identity: columns that every result row shall have.
        optimizer_state: AdamW's at the end of training, for methods that go on with it.

    Raises:
        UserError: an artifact that the corpus lacks, an unknown metric, or one that fails.
    """
    device = next(model.parameters()).device
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device, metrics=recipe.evaluation.metrics)
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
        clean=compact_rows(corpus.clean) if len(corpus.clean) > MAXIMUM_RETAIN else None,
        seed=recipe.seed,
        optimizer_state=optimizer_state or {},
    )
    identity = {"seed": recipe.seed, "protocol": recipe.protocol, **recipe.mitigation.shown, **(identity or {})}
    return _checked(Subject(model, evaluator, before, seen, data, identity, Asked.of_recipe(recipe)))


def subject_of_rows(
    model: nn.Module, forget: Rows, retain: Rows, *, seed: int = 0, identity: Row | None = None, asked: Asked | None = None
) -> Subject:
    """Measure a model on any rows to forget, all shown to the method; half of the retain rows, by seed, only measure perplexity.

    Args:
        model: any causal language model, on any device; rows go there.
        forget: rows whose suffixes are to be forgotten.
        retain: at least 2 rows to keep, as long as the others.
        seed: of that half, and of the method.
        identity: columns that every result row shall have.
        asked: what is measured; default: the default metrics.

    Raises:
        UserError: too few rows to keep, an unknown metric, or one that fails.
    """
    device = next(model.parameters()).device
    if len(retain) < 2:
        raise UserError(f"expected at least 2 retain rows (half of them measure perplexity), got {len(retain)}")
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed))
    kept, test = retain.take(order[: len(order) // 2]), retain.take(order[len(order) // 2 :])
    asked = asked or Asked()
    evaluator = Evaluator.of_rows(forget.to(device), test.to(device), metrics=asked.metrics)
    everything = np.ones(len(forget), dtype=bool)
    data = MitigationData(forget=forget.to(device), retain=kept.to(device), seed=seed)
    identity = {"seed": seed, "protocol": "paper", **(identity or {})}
    return _checked(Subject(model, evaluator, evaluator.measure(model), {"rows": Seen(everything, ~everything)}, data, identity, asked))


def _checked(subject: Subject) -> Subject:
    """The subject, once its metrics have been computed: a metric that fails does so before any method has run."""
    assert subject.metrics_before is not None
    return subject


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
    forget[rows[: max(1, round(len(rows) * recipe.mitigation.forget_fraction))]] = True  # of a single row too, which half rounds to none
    return Seen(forget, memorised & ~forget)


def _forget_rows(corpus: Corpus, probe: Probe, forget: Flags, kind: str) -> Rows:
    """The chosen planted rows as they stood in training."""
    ids = corpus.planted[kind].ids[probe.index[forget]]
    prompt = probe.rows.prompt.cpu()[torch.from_numpy(np.flatnonzero(forget))]
    return Rows.of(ids, prompt, content_lengths(ids, corpus.pad))


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
    return Rows.of(ids, prompt, content_lengths(ids, pad))
