"""The fixed inputs of an evaluator, as metrics see them: probes, test rows and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.evaluation.forward import TokenQuery
from tinymem.evaluation.originals import Original
from tinymem.evaluation.probes import Probe
from tinymem.results.share import Share

Performance = Literal["accuracy", "perplexity"]


@dataclass(frozen=True)
class EvaluationInputs:
    """Fixed prompts, targets and test rows of a measurement, on the models' device, with the options of measuring.

    Attributes:
        probes: the test of memorization of each artifact.
        tests: per test set, its rows [N, T] and the scored tokens.
        ceiling: share of the scored tokens that their prefix determines; None where that is unknown (text).
        performance_metric: the meaning of `performance` in result rows.
        batch_size: rows of a forward pass; no result depends on it.
        forbid: token that decoding may not produce (protocol reference).
        metrics: names of registered metrics that `Measurement.metrics` computes.
        originals: the probes' rows as they were in training.
        probes_by_k: the probes of further prompt lengths, for artifacts whose rows do not fix the length of their prompts.
        corpus: the source of the rows; None for a user's own rows.
        process: this process's number and the number of all that measure the same model together; they must all call `measure`.
    """

    probes: dict[str, Probe]
    tests: dict[str, tuple[Tensor, Tensor]]
    ceiling: Share | None
    performance_metric: Performance
    batch_size: int = 512
    forbid: int | None = None
    metrics: tuple[str, ...] = ()
    originals: Mapping[str, Original] = field(default_factory=dict)
    probes_by_k: Mapping[int, Mapping[str, Probe]] = field(default_factory=dict)
    corpus: Corpus | None = None
    process: tuple[int, int] = (0, 1)

    @property
    def vocab_size(self) -> int | None:
        """Size of the vocabulary; None without a corpus."""
        return self.corpus.vocab_size if self.corpus else None

    @cached_property
    def prompt_names(self) -> dict[str, str]:
        """Names of the prompt lengths by artifact: `k=50`, or `own prompt` where the length differs from row to row."""
        lengths = {kind: set(probe.rows.prompt.tolist()) for kind, probe in self.probes.items()}
        return {kind: f"k={min(found)}" if len(found) == 1 else "own prompt" for kind, found in lengths.items()}

    def query(self, probe: Probe) -> TokenQuery:
        """The query of a probe's windows, for the forward plan."""
        return TokenQuery(probe.rows.ids, probe.rows.window(), forbid=self.forbid is not None)
