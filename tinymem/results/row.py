"""Result rows: one dataclass for each kind, every column named, typed and explained once.

A row is flat, so that JSON lines, CSV, Parquet and pandas all take it as it is. Wherever a row holds a share, the count and the rows behind
it stand in columns of their own next to it. `row.memorized_after` is the typed way to a column; `row["memorized_after"]` and `dict(row)`
give the same values as JSON, for columns that are chosen at run time.

`as_dict` is the one writer and `read.read_row` the one reader: runs, sweeps, reports and `tinymem check` all go through them.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, TypedDict

from tinymem.results.share import Share, ShareColumn
from tinymem.runtime.json import Json, JsonObject

Status = Literal["ok", "refused", "failed", "timeout"]
PerformanceMetric = Literal["accuracy", "perplexity"]
Moment = Literal["before", "after"]
OPTIONAL = frozenset(
    {
        "family",
        "training_seconds",
        "finished",
        "host",
        "attempts",
        "traceback",
        "memorized_by_copies_before",
        "memorized_by_copies_after",
        "robustness",
        "scores_shared",
        "seconds_measure",
        "rows_retain",
        "row_tokens",
    }
)
"""Columns that are written only where they have a value."""


@dataclass(frozen=True)
class RateColumns:
    """The columns of a rate of memorization: `<share>_before` and `_after`, `<count>_before` and `_after`, and the rows behind them."""

    share: str
    count: str
    rows: str


class RequestColumn(TypedDict):
    """What a row was to measure, which tells whether a stored row answers a later request."""

    metrics: list[str]
    ks: list[int]
    robustness: JsonObject | None


class LayersColumn(TypedDict):
    """How much an edit zeroed or changed in each block, bottom to top: lists of one number a block."""

    neurons: list[int]
    """Neurons zeroed, of `of_neurons` there are."""
    of_neurons: list[int]
    weights: list[int]
    """Feed-forward weights zeroed, of `of_weights` there are."""
    of_weights: list[int]
    changed: list[int]
    """Parameters changed anywhere in the block."""
    elsewhere: int
    """Parameters changed outside all blocks."""


class BeforeAfter(TypedDict):
    """One test of the unedited model and of the edited one."""

    before: JsonObject
    after: JsonObject


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The model of a row and where it was measured: the columns that all rows of one model share."""

    run: str | None = None
    """The run's folder (`<recipe>-<id>`), or the checkpoint's path."""
    model_name: str | None = None
    """Readable, the same for all seeds and epochs: `additive-3000-noise-4L`, `wiki-noise-16L+goldfish`."""
    data: str | None = None
    """additive, multiplicative or wiki; null where the model came without a recipe, as are the next columns then."""
    data_size: int | None = None
    """Sequences per auxiliary task (math); null for text."""
    n_layer: int | None = None
    """Blocks."""
    n_parameters: int | None = None
    """Parameters, tied ones counted once."""
    epoch: int | None = None
    """Epochs trained at this checkpoint."""
    regularizer: str | None = None
    """Regularizers with the options that are not at their defaults, joined by ` + `; null for none."""
    family: str | None = None
    """Id shared by models that differ only in seed, regularizers and epochs: those that one table compares."""
    model_id: str | None = None
    """Content id of the recipe (a run's rows) or of the weights (a sweep's)."""
    weights: str | None = None
    """Content id of the weights."""
    corpus_sha256: str | None = None
    """Hash of the training corpus."""
    seed: int | None = None
    """Of the mitigation; of a run also of its training."""
    protocol: str | None = None
    """paper or reference."""
    device_type: str | None = None
    """cpu or cuda."""
    device: str | None = None
    """The GPU's name, or the CPU with its number of threads."""
    training_seconds: float | None = None
    """Wall-clock seconds of training, without its measurements."""
    forget: str | None = None
    """Artifacts to forget: a kind, or all."""
    forget_fraction: float | None = None
    """Protocol paper: share of the memorized rows that are forget rows; the others are the holdout."""


@dataclass(frozen=True, kw_only=True)
class ResultRow(Identity):
    """What all kinds of row have."""

    kind: ClassVar[str] = ""

    id: str = ""
    """Content id of what decides the result, and nothing else; rows of one run of a method share it."""
    method: str
    """Registered name; `none` for the trained model itself."""
    artifact: str
    """Kind of artifact that the row is about; `rows` for rows from files."""
    status: Status
    """ok; refused (nothing to do, or an impossible option), failed (an error) or timeout."""
    message: str | None = None
    """Why there is no result."""
    versions: dict[str, str] | None = None
    """Of tinymem, torch and Python."""
    finished: str | None = None
    """When a sweep's run ended, ISO 8601, UTC."""
    host: str | None = None
    """Machine that a sweep's run was done on."""
    attempts: int | None = None
    """At which attempt a sweep's run ended, from 1."""
    traceback: str | None = None
    """Of a failed run of a sweep."""

    @property
    def is_ok(self) -> bool:
        """Whether the row has a result."""
        return self.status == "ok"

    @property
    def source(self) -> str:
        """Name of the row in a report: a run of a method has a row for each artifact."""
        return f"{self.id or self.run or self.method}-{self.artifact}"

    def as_dict(self) -> JsonObject:
        """Every column as JSON, in the order of the class; optional ones only where they have a value."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind, **{name: value for name, value in values.items() if value is not None or name not in OPTIONAL}}

    def keys(self) -> KeysView[str]:
        """Names of the columns that `as_dict` writes."""
        return self.as_dict().keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __getitem__(self, column: str) -> Json:
        value: Json = getattr(self, column)
        return value


@dataclass(frozen=True, kw_only=True)
class MeasuredRow(ResultRow):
    """What was measured of one artifact of one model, before an edit and after it."""

    unit: str | None = None
    """What the method changes: neuron, weight or model."""
    options: JsonObject = field(default_factory=dict)
    """The method's ratio, and its options that are not at their defaults."""
    config: JsonObject | None = None
    """All of the method's options."""

    rows_scored: int | None = None
    """Rows that the test of memorization counts."""
    memorized_before: float | None = None
    """Share of the scored rows that are memorized, in [0, 1]."""
    memorized_count_before: int | None = None
    memorized_after: float | None = None
    memorized_count_after: int | None = None
    rows_forget: int | None = None
    """Memorized rows that the method is given."""
    forget_memorized_before: float | None = None
    """Share of the forget rows that are memorized."""
    forget_memorized_count_before: int | None = None
    forget_memorized_after: float | None = None
    forget_memorized_count_after: int | None = None
    rows_holdout: int | None = None
    """Memorized rows kept from the method."""
    holdout_memorized_before: float | None = None
    """Share of the holdout rows that are memorized."""
    holdout_memorized_count_before: int | None = None
    holdout_memorized_after: float | None = None
    holdout_memorized_count_after: int | None = None
    rows_clean_prompt: int | None = None
    """Noise: scored rows whose own prompt was clean in training."""
    memorized_clean_prompt_before: float | None = None
    memorized_clean_prompt_count_before: int | None = None
    memorized_clean_prompt_after: float | None = None
    memorized_clean_prompt_count_after: int | None = None
    rows_noised_prompt: int | None = None
    """Noise: scored rows whose own prompt was noised in training, so that the model never saw the clean one before the target."""
    memorized_noised_prompt_before: float | None = None
    memorized_noised_prompt_count_before: int | None = None
    memorized_noised_prompt_after: float | None = None
    memorized_noised_prompt_count_after: int | None = None
    memorized_by_copies_before: dict[str, ShareColumn] | None = None
    """By how often a row stands in an epoch, where that differs between rows."""
    memorized_by_copies_after: dict[str, ShareColumn] | None = None

    performance_metric: PerformanceMetric | None = None
    """accuracy (a share, higher is better) or perplexity (at least 1, lower is better), on clean test rows."""
    performance_before: float | None = None
    performance_after: float | None = None
    performance_ceiling: float | None = None
    """Highest accuracy there can be: the share of the scored tokens that their prefix determines."""
    perplexity_before: float | None = None
    perplexity_after: float | None = None

    seconds: float | None = None
    """Of the method alone, without the measurements."""
    peak_mb: float | None = None
    """Most memory during the method, in MiB: of the process, or allocated on the GPU."""
    edited_parameters: int | None = None
    """Parameters whose value changed."""
    edit_norm: float | None = None
    """Euclidean norm of the change."""
    edited_by_layer: LayersColumn | None = None

    request: RequestColumn | None = None
    metrics_before: JsonObject | None = None
    """The registered metrics of the model before the edit, by name."""
    metrics_after: JsonObject | None = None
    robustness: dict[str, BeforeAfter] | None = None
    """Whether what was removed comes back, by test."""

    scores_shared: bool | None = None
    """Whether one scoring pass served other runs of a sweep too."""
    seconds_measure: float | None = None
    """Of the measurement after the edit."""
    rows_retain: int | None = None
    """Rows to keep that the method was given."""
    row_tokens: int | None = None
    """Tokens of a row."""

    @property
    def is_share(self) -> bool:
        """Whether performance is a share in [0, 1]."""
        return self.performance_metric != "perplexity"

    def share(self, rate: RateColumns, moment: Moment) -> Share | None:
        """A rate of memorization with its count; None where it was not measured."""
        count, rows = getattr(self, f"{rate.count}_{moment}"), getattr(self, rate.rows)
        return None if count is None or rows is None else Share(count, rows)


@dataclass(frozen=True, kw_only=True)
class MitigationRow(MeasuredRow):
    """A run of a method on a model, for one artifact."""

    kind: ClassVar[str] = "mitigation"


@dataclass(frozen=True, kw_only=True)
class TrainingRow(MeasuredRow):
    """A trained model as it was before any method: `method` is `none`, and what is `_after` equals what was `_before`."""

    kind: ClassVar[str] = "training"


@dataclass(frozen=True, kw_only=True)
class LocalizationRow(ResultRow):
    """How well a scorer finds where a sequence is stored: a benchmark's number for one method, ratio and layer."""

    kind: ClassVar[str] = "localization"

    benchmark: str | None = None
    """inj, del or layers."""
    options: JsonObject = field(default_factory=dict)
    """The scorer's options that are not at their defaults."""
    config: JsonObject | None = None
    """All of the scorer's options."""
    ratio: float | None = None
    """Share of the neurons or weights of a layer that were injected, or dropped."""
    layer: int | None = None
    """Block, from 0 at the bottom; null for the whole model."""
    sequences: int | None = None
    """Sequences injected or localized."""
    score_name: str | None = None
    """What `score` is: recall, accuracy, ..."""
    score: float | None = None
    """Mean over the sequences."""
    chance: float | None = None
    """What a random choice would score."""
    seconds: float | None = None
    """Of the scorer alone."""


@dataclass(frozen=True, kw_only=True)
class AuditRow(ResultRow):
    """What a checkpoint memorized and how well it does, without any edit (`tinymem evaluate`), for one artifact."""

    kind: ClassVar[str] = "audit"

    prompt: int | None = None
    """Tokens given in the test of memorization."""
    match: int | None = None
    """Tokens that must follow."""
    rows_scored: int | None = None
    memorized: float | None = None
    """Share of the scored rows that are memorized, in [0, 1]."""
    memorized_count: int | None = None
    accuracy: float | None = None
    accuracy_ceiling: float | None = None
    perplexity: float | None = None
    metrics: JsonObject | None = None
    """The registered metrics by name."""


KINDS: dict[str, type[ResultRow]] = {row.kind: row for row in (MitigationRow, TrainingRow, LocalizationRow, AuditRow)}
