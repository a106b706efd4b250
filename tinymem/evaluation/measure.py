"""Everything that is measured of a model, in one call: memorisation on every probe, accuracy and perplexity on every test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.evaluation.accuracy import accuracy_ceiling, as_mask, count_correct, scored_tokens
from tinymem.evaluation.counts import Share
from tinymem.evaluation.memorization import Flags, Probe, elicited, forbidden_token, make_probes, probe_of_rows
from tinymem.evaluation.perplexity import loss_sum, perplexity
from tinymem.models.adapters import logits
from tinymem.recipe import Evaluation, Protocol

Metric = Literal["accuracy", "perplexity"]
MAXIMUM_LOGITS = 1 << 28  # 1 GB in fp32: a batch of rows over GPT-2's vocabulary is cut to that


@dataclass(frozen=True)
class Measurement:
    """What a model memorised and how well it does on clean test rows."""

    elicited: dict[str, Flags]
    """Per artifact: which scored rows were elicited, in the order of the probe."""
    accuracy: Share
    accuracy_by_task: dict[str, Share]
    perplexity: float | None

    def memorised(self, kind: str, among: Flags | None = None) -> Share:
        """Share of an artifact's scored rows that are elicited, of all or of some."""
        flags = self.elicited[kind] if among is None else self.elicited[kind][among]
        return Share(int(flags.sum()), len(flags))

    def performance(self, metric: Metric) -> float | None:
        """The headline number of what the model should keep."""
        return self.accuracy.share if metric == "accuracy" else self.perplexity


@dataclass(frozen=True)
class Evaluator:
    """Measures models on fixed prompts, targets and test rows, which lie on the models' device.

    Attributes:
        probes: the test of memorisation of each artifact.
        tests: per test set, its rows [N, T] and the scored tokens.
        ceiling: share of the scored tokens that their prefix determines; None where that is unknown (text).
        metric: what `performance` in result rows is.
        forbid: token that decoding may not produce (protocol reference).
    """

    probes: dict[str, Probe]
    tests: dict[str, tuple[Tensor, Tensor]]
    ceiling: Share | None
    metric: Metric
    batch_size: int = 512
    forbid: int | None = None

    @staticmethod
    def of_corpus(corpus: Corpus, evaluation: Evaluation, protocol: Protocol, *, device: str | torch.device = "cpu") -> Evaluator:
        """The definitions of a protocol on a corpus."""
        device = torch.device(device)
        tests = {
            name: (Rows.of(ids).ids.to(device), as_mask(scored_tokens(ids, corpus.pad, protocol, text=corpus.is_text), device))
            for name, ids in corpus.tests.items()
        }
        probes = {kind: probe.to(device) for kind, probe in make_probes(corpus, evaluation, protocol).items()}
        ceiling = None if corpus.is_text else accuracy_ceiling(corpus, protocol)
        metric: Metric = "perplexity" if corpus.is_text else "accuracy"
        batch_size = max(1, min(evaluation.batch_size, MAXIMUM_LOGITS // (corpus.row_tokens * corpus.vocab_size)))
        return Evaluator(probes, tests, ceiling, metric, batch_size, forbidden_token(protocol, corpus.eos))

    @staticmethod
    def of_rows(forget: Rows, test: Rows, *, batch_size: int = 64) -> Evaluator:
        """Exact match of any rows' suffixes, and perplexity of other rows."""
        scored = torch.ones_like(test.ids, dtype=torch.bool)
        return Evaluator({"rows": probe_of_rows(forget)}, {"retain": (test.ids, scored)}, None, "perplexity", batch_size)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> Measurement:
        """Measure a model; leaves it in evaluation mode."""
        model.eval()
        by_task, total_loss = {}, 0.0
        for name, (ids_NT, scored_NT) in self.tests.items():
            correct = 0
            for ids_BT, scored_BT in zip(ids_NT.split(self.batch_size), scored_NT.split(self.batch_size), strict=True):
                logits_BTV = logits(model, ids_BT)
                correct += int(count_correct(logits_BTV, ids_BT, scored_BT))
                total_loss += float(loss_sum(logits_BTV, ids_BT, scored_BT))
            by_task[name] = Share(correct, int(scored_NT[:, 1:].sum()))
        accuracy = Share(sum(s.count for s in by_task.values()), sum(s.rows for s in by_task.values()))
        return Measurement(self._elicited(model), accuracy, by_task, perplexity(total_loss, accuracy.rows))

    def by_copies(self, measured: Measurement, kind: str) -> dict[str, Share]:
        """Share memorised per duplication class of an artifact's trained rows; empty where all rows have the same copies."""
        copies = self.probes[kind].copies
        classes = np.unique(copies[copies > 0])
        return {str(c): measured.memorised(kind, copies == c) for c in classes} if len(classes) > 1 else {}

    def _elicited(self, model: nn.Module) -> dict[str, Flags]:
        return {
            kind: np.asarray(elicited(model, probe.rows, batch_size=self.batch_size, forbid=self.forbid))
            for kind, probe in self.probes.items()
        }
