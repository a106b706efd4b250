"""The INJ and DEL benchmarks: a scorer at a ratio becomes result rows (Chang et al. 2024, sections 2 to 5).

Shape suffixes: S sequences, L layers, F neurons of a layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.deletion import Decode, Deletion, delete, located
from tinymem.localization.injection import Injection, InjectionConfig, inject
from tinymem.localization.recall import Scope, recall
from tinymem.localization.scoring import scores_by_sequence, scores_of_injected
from tinymem.mitigation.method import MethodCall, MitigationData
from tinymem.mitigation.run import chosen, versions
from tinymem.recipe.localization import LocalizationRecipe
from tinymem.results.row import Identity, LocalizationRow
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar, SilentBar


@dataclass(frozen=True)
class Benchmark:
    """A model with the sequences of a benchmark.

    Attributes:
        model: of any registered family; every call leaves it bit for bit as it was.
        recipe: options.
        rows: INJ: sequences to inject; DEL: memorized rows.
        retain: ordinary rows for scorers that compare with them (NeMo).
        text: DEL: ordinary rows whose perplexity is measured.
        identity: columns that every result row shares.
        decode: token ids to text, for DEL's distances; None: none.
    """

    model: nn.Module
    recipe: LocalizationRecipe
    rows: Rows
    retain: Rows
    text: Rows
    identity: Identity
    decode: Decode | None = None
    injections: dict[float, Injection] = field(default_factory=dict)
    """INJ: injections by ratio, filled as they are needed."""
    scores: dict[str, tuple[torch.Tensor, float]] = field(default_factory=dict)
    """DEL: scores of all rows and their seconds by scorer, filled as they are needed, once for all ratios."""

    def data(self, bar: Bar) -> MitigationData:
        """What the scorers are given."""
        return MitigationData(self.rows, self.retain, seed=self.recipe.seed, bar=bar)

    def score(self, call: MethodCall, ratio: float, row_id: str, bar: Bar | None = None) -> list[LocalizationRow]:
        """Result rows of a scorer at a ratio.

        Raises:
            UserError: no scorer of neurons, or a ratio of less than one neuron a layer.
        """
        start = LocalizationRow(
            **vars(self.identity), id=row_id, method=call.name, artifact="sequences", status="ok", versions=versions(),
            benchmark=self.recipe.benchmark, unit="neuron", config=call.config.as_json(), options=_options(call),
            ratio=ratio, sequences=len(self.rows),
        )  # fmt: skip
        make = self._injected if self.recipe.benchmark == "inj" else self._deleted
        return make(call, ratio, start, bar or SilentBar())

    def _injected(self, call: MethodCall, ratio: float, start: LocalizationRow, bar: Bar) -> list[LocalizationRow]:
        if ratio not in self.injections:
            self.injections[ratio] = inject(self.model, self.rows, injection_config(self.recipe, ratio))
        found = self.injections[ratio]
        began = time.perf_counter()
        scores_SLF = scores_of_injected(call, self.model, self.data(bar), found)
        _wait(self.rows)
        seconds = time.perf_counter() - began
        start = replace(start, seconds=seconds, reached=int(found.reached_S.sum()), steps=float(found.steps_S.double().median()))
        return [self._recall(start, scores_SLF, found, ratio * top, scope) for scope in self.recipe.scopes for top in self.recipe.tops]

    def _recall(self, start: LocalizationRow, scores_SLF: torch.Tensor, found: Injection, top: float, scope: Scope) -> LocalizationRow:
        result = recall(scores_SLF, found.gold_SLF, min(1.0, top), scope)
        low, high = result.interval
        return replace(start, top=top, scope=scope, score_name="recall", score=result.mean, low=low, high=high, chance=result.chance)

    def _deleted(self, call: MethodCall, ratio: float, start: LocalizationRow, bar: Bar) -> list[LocalizationRow]:
        scores_SLF, seconds = self._scores(call, bar)
        found = self.deletion(scores_SLF, ratio)
        start = replace(start, seconds=seconds, sequences=len(found.targets_N))
        before = _before(found)
        return [
            replace(start, score_name=name, score=mean, low=low, high=high, before=before.get(name))
            for name, (mean, low, high) in found.summary().items()
        ]

    def _scores(self, call: MethodCall, bar: Bar) -> tuple[torch.Tensor, float]:
        """Scores of all rows and the seconds they took, once for all ratios."""
        key = canonical_json([call.name, {k: v for k, v in call.config.as_json().items() if k != "ratio"}])
        if key not in self.scores:
            began = time.perf_counter()
            scores_SLF = scores_by_sequence(call, self.model, self.data(bar))
            _wait(self.rows)
            self.scores[key] = scores_SLF, time.perf_counter() - began
        return self.scores[key]

    def deletion(self, scores_SLF: torch.Tensor, ratio: float) -> Deletion:
        """Drop what the scores name, row after row; rows of the development set are measured, but are no targets."""
        skip = self.recipe.development
        targets = torch.arange(skip, len(self.rows))
        chosen_SLF = located(scores_SLF, ratio, skip_bottom=self.recipe.skip_bottom)
        return delete(self.model, self.rows, self.text, chosen_SLF[skip:], targets=targets, decode=self.decode)


def injection_config(recipe: LocalizationRecipe, ratio: float) -> InjectionConfig:
    """Options of the injections at a ratio."""
    return InjectionConfig(ratio, recipe.learning_rate, recipe.steps, recipe.loss, recipe.sequences.seed)


def calls_at(calls: Iterable[tuple[MethodCall, float | None]], ratio: float) -> list[MethodCall]:
    """The calls that run at a ratio: those that name it, and of other methods those that name none."""
    known = list(calls)
    named = {call.name for call, at in known if at == ratio}
    return [call for call, at in known if at == ratio or (at is None and call.name not in named)]


def random_sequences(vocabulary: int, count: int, tokens: int, *, leave_out: Iterable[int] = (), seed: int = 0) -> Rows:
    """Rows [count, tokens] of ids drawn uniformly from a vocabulary without some ids (the special ones).

    Raises:
        UserError: fewer than two ids remain.
    """
    left_out = set(leave_out)
    ids = torch.tensor([i for i in range(vocabulary) if i not in left_out])
    if len(ids) < 2:
        raise UserError(f"expected a vocabulary of at least 2 ordinary tokens, got {len(ids)}; name a file of sequences")
    drawn = torch.randint(len(ids), (count, tokens), generator=torch.Generator().manual_seed(seed))
    return Rows.of(ids[drawn])


def _before(found: Deletion) -> dict[str, float]:
    accuracy, nll = float(found.before.accuracy_S.double().mean()), found.before.nll_R.double()
    distance = float(found.before.distance_S.double().mean())
    known = {"self_accuracy": accuracy, "other_accuracy": accuracy, "self_distance": distance, "other_distance": distance}
    return known | ({"text_nll": float(nll.mean()), "text_perplexity": float(nll.mean().exp())} if len(nll) else {})


def _options(call: MethodCall) -> JsonObject:
    return {name: value for name, value in chosen(call.config).items() if name != "ratio"}


def _wait(rows: Rows) -> None:
    if rows.ids.is_cuda:
        torch.cuda.synchronize()
