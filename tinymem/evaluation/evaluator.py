"""Everything that is measured of a model, in one call: memorization on every probe, accuracy and perplexity on every test set.

All evaluation rows are deduplicated and batched once; one teacher-forced pass gives the arg-max and loss of every queried token, from
which memorization, performance and the registered metrics (`metrics`) follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.evaluation.accuracy import accuracy_ceiling, as_mask, scored_tokens
from tinymem.evaluation.forward import ForwardPlan, Key, TokenQuery
from tinymem.evaluation.inputs import EvaluationInputs, Performance
from tinymem.evaluation.metric import METRICS, chosen_metrics
from tinymem.evaluation.originals import Original, originals_of_corpus
from tinymem.evaluation.perplexity import perplexity
from tinymem.evaluation.probes import Flags, Probe, forbidden_token, make_probes, probe_of_rows
from tinymem.evaluation.view import Groups, View
from tinymem.models.adapters import refuse_longer_rows
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.evaluation import Evaluation
from tinymem.results.share import Share
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar

MAXIMUM_LOGITS = 1 << 28  # 1 GB in fp32: a batch of rows over GPT-2's vocabulary is cut to that


@dataclass(frozen=True)
class Measurement:
    """One model's measurement: its memorized rows and its performance on clean test rows."""

    memorized: dict[str, Flags]
    """Per artifact: which scored rows are memorized, in the order of the probe."""
    accuracy: Share
    accuracy_by_task: dict[str, Share]
    perplexity: float | None
    view: View = field(repr=False, compare=False)
    """The outputs of the forward pass, for the registered metrics."""

    def memorized_share(self, kind: str, among: Flags | None = None) -> Share:
        """Share of an artifact's scored rows that are memorized, of all or of some."""
        flags = self.memorized[kind] if among is None else self.memorized[kind][among]
        return Share(int(flags.sum()), len(flags))

    def performance(self, metric: Performance) -> float | None:
        """The performance that the model should keep: accuracy as a share of tokens, or perplexity (None on overflow)."""
        return self.accuracy.share if metric == "accuracy" else self.perplexity

    def metrics(self, groups: Groups | None = None, *, tolerant: bool = False) -> dict[str, JsonObject]:
        """The evaluator's registered metrics of each artifact, over all its rows and over the given groups of them.

        Raises:
            UserError: a metric failed; where `tolerant`, that is a warning, and the metric null.
        """
        evaluator = self.view.evaluator
        view = self.view.grouped(groups or {})
        with torch.no_grad():
            return {kind: view.metrics(kind, evaluator.metrics, tolerant=tolerant) for kind in evaluator.probes}


@dataclass(frozen=True)
class Evaluator(EvaluationInputs):
    """Fixed evaluation inputs that any number of models are measured on."""

    @staticmethod
    def of_corpus(
        corpus: Corpus,
        evaluation: Evaluation,
        protocol: Protocol,
        *,
        device: str | torch.device = "cpu",
        metrics: tuple[str, ...] = (),
        process: tuple[int, int] = (0, 1),
    ) -> Evaluator:
        """The definitions of a protocol on a corpus. `metrics`: names, `default` or `all`.

        Raises:
            UserError: an unknown metric.
        """
        device = torch.device(device)
        tests = {
            name: (Rows.of(ids).ids.to(device), as_mask(scored_tokens(ids, corpus.pad, protocol, text=corpus.is_text), device))
            for name, ids in corpus.tests.items()
        }
        probes = {kind: probe.to(device) for kind, probe in make_probes(corpus, evaluation, protocol).items()}
        names = chosen_metrics(metrics)
        return Evaluator(
            probes,
            tests,
            ceiling=None if corpus.is_text else accuracy_ceiling(corpus, protocol),
            performance_metric="perplexity" if corpus.is_text else "accuracy",
            batch_size=max(1, min(evaluation.batch_size, MAXIMUM_LOGITS // (corpus.row_tokens * corpus.vocab_size))),
            forbid=forbidden_token(protocol, corpus.eos),
            metrics=names,
            originals=originals_of_corpus(corpus, probes, evaluation, protocol, device),
            probes_by_k=_probes_by_k(corpus, evaluation, protocol, device) if names else {},
            corpus=corpus,
            process=process,
        )

    @staticmethod
    def of_rows(forget: Rows, test: Rows, *, batch_size: int = 64, metrics: tuple[str, ...] = (), forbid: int | None = None) -> Evaluator:
        """Exact match of any rows' suffixes, and perplexity of other rows, each to its own end. `forbid`: see `EvaluationInputs`."""
        return Evaluator(
            {"rows": probe_of_rows(forget)} if len(forget) else {},
            {"retain": (test.ids, test.own())} if len(test) else {},
            None,
            "perplexity",
            batch_size,
            forbid,
            metrics=chosen_metrics(metrics),
            originals={"rows": Original(forget.ids, None, None, forget.lengths())},
        )

    @cached_property
    def plan(self) -> ForwardPlan:
        """The forward plan of a measurement: test rows, probes, and the rows that metrics request."""
        parts: dict[Key, TokenQuery] = {("test", name): TokenQuery(ids, scored) for name, (ids, scored) in self.tests.items()}
        for kind, probe in self.probes.items():
            parts["probe", kind] = self.query(probe)
        for name in self.metrics:
            rows = METRICS.get(name).rows
            parts |= rows(self) if rows else {}
        return ForwardPlan(parts)

    @torch.no_grad()
    def measure(self, model: nn.Module, bar: Bar | None = None) -> Measurement:
        """Measure a model; leaves it in evaluation mode. `bar` counts the batches of the forward pass.

        Raises:
            UserError: rows that are longer than the model.
        """
        refuse_longer_rows(model, self.plan.length)
        model.eval()
        outputs = self.plan.outputs(model, batch_size=self.batch_size, forbid=self.forbid, process=self.process, bar=bar)
        view = View(model, self, self.plan, outputs.of_all(self.process[1]))
        by_task, total_loss = {}, 0.0
        for name in self.tests:
            scores = view.scores["test", name]
            by_task[name] = Share(int(scores.right.sum()), int(scores.queried.sum()))
            total_loss += float(scores.loss.double().sum())
        accuracy = Share(sum(s.count for s in by_task.values()), sum(s.rows for s in by_task.values()))
        return Measurement(view.memorized, accuracy, by_task, perplexity(total_loss, accuracy.rows), view)

    def by_copies(self, measured: Measurement, kind: str) -> dict[str, Share]:
        """Share memorized per duplication class of an artifact's trained rows; empty where all rows have the same copies.

        A class none of whose rows is scored has a share of no rows, so that another is never taken for it.
        """
        copies = self.probes[kind].copies
        planted = copies if self.corpus is None else self.corpus.planted[kind].copies
        found = {str(c): measured.memorized_share(kind, copies == c) for c in np.unique(planted[planted > 0])}
        return found if len(found) > 1 and any(share.rows for share in found.values()) else {}


def _probes_by_k(corpus: Corpus, evaluation: Evaluation, protocol: Protocol, device: torch.device) -> dict[int, dict[str, Probe]]:
    """Probes of every further prompt length k, for the same n = prompt + match."""
    own = {kind for kind, planted in corpus.planted.items() if (planted.start > 0).any()}
    n = evaluation.prompt + evaluation.match
    found = {}
    for k in evaluation.ks:
        window = evaluation.model_copy(update={"prompt": k, "match": n - k, "ks": ()})
        probes = make_probes(corpus, window, protocol)
        found[k] = {kind: probe.to(device) for kind, probe in probes.items() if kind not in own}
    return found
