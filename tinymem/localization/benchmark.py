"""The INJ and DEL benchmarks: a scorer at a ratio becomes result rows (Chang et al. 2024, sections 2 to 5).

Shape suffixes: S sequences, L layers, F neurons of a layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median

import torch
from torch import nn

from tinymem.data.own_rows import rows_digest
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.confusion import confusion_of
from tinymem.localization.deletion import Decode, Deletion, delete, located, published_perplexity
from tinymem.localization.injection import Injection, InjectionConfig, inject
from tinymem.localization.recall import Recall, Scope, TensorScope, recall
from tinymem.localization.scoring import scores_by_sequence, scores_of_injected
from tinymem.localization.weights import Question, WeightInjection, inject_weights, weight_recalls
from tinymem.mitigation.ablation import AblationConfig
from tinymem.mitigation.method import MethodCall, MitigationData
from tinymem.mitigation.run import chosen, versions
from tinymem.recipe.localization import LocalizationOptions
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
    recipe: LocalizationOptions
    rows: Rows
    retain: Rows
    text: Rows
    identity: Identity
    decode: Decode | None = None
    categories: tuple[str, ...] = ()
    """DEL: of each row, for the confusion matrix; empty: no matrix."""
    injections: dict[float, Injection] = field(default_factory=dict)
    """INJ: injections by ratio, filled as they are needed."""
    in_weights: dict[float, WeightInjection] = field(default_factory=dict)
    """INJ of weights likewise."""
    scores: dict[str, tuple[torch.Tensor, float]] = field(default_factory=dict)
    """DEL: scores of all rows and their seconds by scorer, filled as they are needed, once for all ratios."""

    def data(self, bar: Bar) -> MitigationData:
        """What the scorers are given."""
        return MitigationData(self.rows, self.retain, seed=self.recipe.seed, bar=bar)

    def score(self, call: MethodCall, ratio: float, row_id: str, bar: Bar | None = None) -> list[LocalizationRow]:
        """Result rows of a scorer at a ratio.

        Raises:
            UserError: no scorer of the benchmark's unit, or a ratio of less than one neuron a layer or one weight a matrix.
        """
        injected = self._in_weights if self.recipe.unit == "weight" else self._injected
        make = injected if self.recipe.benchmark == "inj" else self._deleted
        return make(call, ratio, self._start(call, ratio, row_id), bar or SilentBar())

    def _start(self, call: MethodCall, ratio: float, row_id: str) -> LocalizationRow:
        return LocalizationRow(
            **vars(self.identity), id=row_id, method=call.name, artifact="sequences", status="ok", versions=versions(),
            benchmark=self.recipe.benchmark, unit=self.recipe.unit, config=call.config.as_json(), options=_options(call),
            settings=self._settings, ratio=ratio, sequences=len(self.rows),
        )  # fmt: skip

    @cached_property
    def _settings(self) -> JsonObject:
        """What decides the numbers of all scorers: options, the length of the longest sequence, and the content of the rows."""
        length = {"tokens": self.rows.ids.shape[1]} if self.recipe.benchmark == "inj" else {}
        return {**self.recipe.settings(), **length, "rows_id": rows_digest(self.rows, self.text)}

    def _injected(self, call: MethodCall, ratio: float, start: LocalizationRow, bar: Bar) -> list[LocalizationRow]:
        if ratio not in self.injections:
            self.injections[ratio] = inject(self.model, self.rows, injection_config(self.recipe, ratio))
        found = self.injections[ratio]
        began = time.perf_counter()
        scores_SLF = scores_of_injected(call, self.model, self.data(bar), found)
        _wait(self.rows)
        seconds = time.perf_counter() - began
        start = _with_injection(start, found, seconds)
        asked = self._questions(ratio)
        return [_recall_row(start, q, recall(scores_SLF, found.gold_SLF, q.top, _of_neurons(q.scope))) for q in asked]

    def _in_weights(self, call: MethodCall, ratio: float, start: LocalizationRow, bar: Bar) -> list[LocalizationRow]:
        if ratio not in self.in_weights:
            self.in_weights[ratio] = inject_weights(self.model, self.rows, injection_config(self.recipe, ratio))
        found, asked = self.in_weights[ratio], self._questions(ratio)
        recalls, seconds = weight_recalls(self._at(call, ratio), self.model, _one_length(self.data(bar)), found, asked)
        start = _with_injection(start, found, seconds)
        return [_recall_row(start, question, result) for question, result in zip(asked, recalls, strict=True)]

    def _questions(self, ratio: float) -> list[Question]:
        """How much a scorer may name, of each scope; no more than there is."""
        shares = dict.fromkeys(min(1.0, ratio * top) for top in self.recipe.tops)
        return [Question(share, scope) for scope in self.recipe.wanted_scopes for share in shares]

    def _at(self, call: MethodCall, ratio: float) -> MethodCall:
        """A weight method at the injected ratio; one that ranks only as many as its ratio says, at the most that it may name."""
        most = max(self.recipe.tops) if call.method.steps else 1
        config = call.config
        return replace(call, config=replace(config, ratio=min(1.0, ratio * most))) if isinstance(config, AblationConfig) else call

    def _deleted(self, call: MethodCall, ratio: float, start: LocalizationRow, bar: Bar) -> list[LocalizationRow]:
        scores_SLF, seconds = self._scores(call, bar)
        found = self.deletion(scores_SLF, ratio)
        return _deleted_rows(replace(start, seconds=seconds, sequences=len(found.targets_N)), found, self.categories)

    def develop(self, call: MethodCall, ratio: float, row_id: str, bar: Bar | None = None) -> list[LocalizationRow]:
        """Result rows (artifact `development`) of a scorer on DEL's first rows alone, by which its options are chosen.

        Raises:
            UserError: as of `score`; fewer than two rows to choose on.
        """
        rows = self.rows.take(torch.arange(self.recipe.development, device=self.rows.ids.device))
        began = time.perf_counter()
        scores_SLF = scores_by_sequence(call, self.model, replace(self.data(bar or SilentBar()), forget=rows))
        _wait(rows)
        start = replace(self._start(call, ratio, row_id), artifact="development", seconds=time.perf_counter() - began, sequences=len(rows))
        chosen_SLF = located(scores_SLF, ratio, skip_bottom=self.recipe.skip_bottom)
        return _deleted_rows(start, delete(self.model, rows, rows.take(rows.prompt[:0]), chosen_SLF), ())

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


def injection_config(recipe: LocalizationOptions, ratio: float) -> InjectionConfig:
    """Options of the injections at a ratio."""
    return InjectionConfig(ratio, recipe.learning_rate, recipe.steps, recipe.loss, recipe.sequences.seed)


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


def _one_length(data: MitigationData) -> MitigationData:
    """The same rows, all filled up to the longest, for methods that make batches of both kinds."""
    tokens = max(data.forget.ids.shape[1], data.retain.ids.shape[1])
    return replace(data, forget=data.forget.filled(tokens), retain=data.retain.filled(tokens)) if len(data.retain) else data


def _with_injection(start: LocalizationRow, found: Injection | WeightInjection, seconds: float) -> LocalizationRow:
    reached, steps = int(found.reached_S.sum()), median(found.steps_S.tolist())
    sizes = found.relative_S[found.relative_S.isfinite()].tolist()  # no share is of what was 0 before
    return replace(start, seconds=seconds, reached=reached, steps=float(steps), change=round(median(sizes), 6) if sizes else None)


def _recall_row(start: LocalizationRow, asked: Question, result: Recall) -> LocalizationRow:
    low, high = result.interval
    return replace(
        start, top=asked.top, scope=asked.scope, score_name="recall", score=result.mean, low=low, high=high, chance=result.chance,
        values=[round(value, 6) for value in result.values_S.tolist()],
    )  # fmt: skip


def _deleted_rows(start: LocalizationRow, found: Deletion, categories: Sequence[str]) -> list[LocalizationRow]:
    before, changes = _before(found), found.known_changes()
    matrix = confusion_of(found, categories) if categories else None
    return [
        replace(
            start, score_name=name, score=mean, low=low, high=high, before=before.get(name),
            values=[round(value, 6) for value in changes[name].tolist()], confusion=matrix if name == "self_accuracy" else None,
        )
        for name, (mean, low, high) in found.summary().items()
    ]  # fmt: skip


def _of_neurons(scope: TensorScope) -> Scope:
    return "model" if scope == "model" else "layer"


def _before(found: Deletion) -> dict[str, float]:
    accuracy, nll = float(found.before.accuracy_S.double().mean()), found.before.nll_R.double()
    distance = float(found.before.distance_S.double().mean())
    known = {"self_accuracy": accuracy, "other_accuracy": accuracy, "self_distance": distance, "other_distance": distance}
    if not len(nll):
        return known
    base2 = float(published_perplexity(nll[None]))
    return known | {"text_nll": float(nll.mean()), "text_perplexity": float(nll.mean().exp()), "text_perplexity_base2": base2}


def _options(call: MethodCall) -> JsonObject:
    return {name: value for name, value in chosen(call.config).items() if name != "ratio"}


def _wait(rows: Rows) -> None:
    if rows.ids.is_cuda:
        torch.cuda.synchronize()
