"""Result rows: one dataclass for each kind, every column named, typed and explained once.

A row is flat, so that JSON lines, CSV, Parquet and pandas can all hold it. Every share has its count and its number of rows in separate
columns next to it. `row.memorized_after` is the typed way to a column; `row["memorized_after"]` and `dict(row)` give the same values as
JSON, for columns that are chosen at run time.

`as_dict` is the one writer and `read.read_row` the one reader: runs, sweeps, reports and `tinymem check` all go through them.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from tinymem.results.nested import BeforeAfter, ConfusionColumn, LayersColumn, RequestColumn
from tinymem.results.share import RateColumns, Share, ShareColumn
from tinymem.runtime.json import Json, JsonObject

Status = Literal["ok", "refused", "failed", "timeout"]
PerformanceMetric = Literal["accuracy", "perplexity"]
Moment = Literal["before", "after"]
OPTIONAL = frozenset(
    {
        *("family", "commit", "revision", "step", "dtype", "training_seconds", "training_threads", "finished"),
        *("host", "attempts", "traceback", "memorized_by_copies_before", "memorized_by_copies_after"),
        *("robustness", "prompt", "match", "rows_left_out", "rows_id", "scores_shared"),
        *("seconds_measure", "seconds_robustness", "rows_retain", "row_tokens", "optimizer_state", "computed_in", "plugin"),
        *("values", "confusion", "found", "window", "settings"),
    }
)
"""Columns that are written only where they have a value."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identity of a row's model and device: the columns that all rows of one model share."""

    run: str | None = None
    """The run's folder (`<recipe>-<id>`), or the checkpoint's path."""
    model_name: str | None = None
    """Readable name, the same for all seeds and epochs: `additive-3000-noise-4L`, `wiki-noise-16L+goldfish`."""
    data: str | None = None
    """Kind of training data: additive, multiplicative or wiki; null, like the next columns, for a model without a recipe."""
    data_size: int | None = None
    """Number of sequences per auxiliary task (math); null for text."""
    n_layer: int | None = None
    """Number of transformer blocks."""
    n_parameters: int | None = None
    """Number of parameters, tied ones counted once."""
    epoch: int | None = None
    """Number of epochs trained at this checkpoint."""
    regularizer: str | None = None
    """Regularizers with the options that are not at their defaults, joined by ` + `; null for none."""
    family: str | None = None
    """Id shared by models that differ only in seed, regularizers and epochs: those that one table compares."""
    model_id: str | None = None
    """Content id of the recipe (a run's rows) or of the weights (a sweep's)."""
    weights: str | None = None
    """Content id of the model's weights, 16 hexadecimal digits."""
    commit: str | None = None
    """Commit of the Hub that the model was fetched at; null for a folder of this machine."""
    revision: str | None = None
    """Branch, tag or commit of the Hub by which the model was asked for; null where none was named."""
    step: int | None = None
    """Step of training at this checkpoint, for revisions and folders that are named after it, as Pythia's `step143000`."""
    dtype: str | None = None
    """Type of the model's weights in memory: float32, bfloat16 or float16; null for a run's or a sweep's own models, in float32."""
    corpus_sha256: str | None = None
    """SHA-256 of the training corpus."""
    seed: int | None = None
    """Seed of the mitigation; for a run also of its training."""
    protocol: str | None = None
    """Protocol of the evaluation: paper or reference."""
    device_type: str | None = None
    """Type of the device: cpu or cuda."""
    device: str | None = None
    """The GPU's name, or the CPU with its number of threads."""
    training_seconds: float | None = None
    """Wall-clock seconds of training, without its measurements."""
    training_threads: str | None = None
    """CPU threads that trained the model: `2`, or `1, 2` where training went on with another number; null on a GPU."""
    forget: str | None = None
    """Artifacts to forget: a kind, or all."""
    forget_fraction: float | None = None
    """Protocol paper: share of the memorized rows that are forget rows; the others are the holdout."""
    prompt: int | None = None
    """Number of prompt tokens in the test of memorization; null where rows from files have prompts of their own."""
    match: int | None = None
    """Number of tokens that must follow the prompt; for rows from files the most that any row has."""
    rows_left_out: int | None = None
    """Number of rows of the files that hold nothing or are too short."""
    rows_id: str | None = None
    """Content id of the rows from files and their windows; null for a corpus, and in rows of an older TinyMem."""


@dataclass(frozen=True, kw_only=True)
class ResultRow(Identity):
    """Columns that all kinds of row share."""

    kind: ClassVar[str] = ""

    id: str = ""
    """Content id: a hash of all that decides the result, and of nothing else; rows of one run of a method share it."""
    method: str
    """Registered name of the method; `none` for the trained model itself."""
    artifact: str
    """Kind of artifact that the row is about; `rows` for rows from files."""
    status: Status
    """Status of the run: ok, refused (nothing to do, or an impossible option), failed (an error) or timeout."""
    message: str | None = None
    """Reason for a missing result; null where there is one."""
    versions: dict[str, str] | None = None
    """Versions of tinymem, torch and Python."""
    finished: str | None = None
    """Time at which a sweep's run ended, ISO 8601, UTC."""
    host: str | None = None
    """Machine that a sweep's run was done on."""
    attempts: int | None = None
    """Number of the attempt at which a sweep's run ended, from 1."""
    traceback: str | None = None
    """Traceback of a failed run of a sweep."""

    @property
    def is_ok(self) -> bool:
        """Whether the row has a result (status `ok`)."""
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
    """The measurement of one artifact of one model, before an edit and after it."""

    unit: str | None = None
    """Unit that the method changes: neuron, weight or model."""
    options: JsonObject = field(default_factory=dict)
    """The method's ratio, and its options that are not at their defaults."""
    config: JsonObject | None = None
    """All options of the method, defaults included."""

    rows_scored: int | None = None
    """Number of rows that the test of memorization counts."""
    memorized_before: float | None = None
    """Share of the scored rows that are memorized, in [0, 1]."""
    memorized_count_before: int | None = None
    memorized_after: float | None = None
    memorized_count_after: int | None = None
    rows_forget: int | None = None
    """Number of forget rows, given to the method."""
    forget_memorized_before: float | None = None
    """Share of the forget rows that are memorized."""
    forget_memorized_count_before: int | None = None
    forget_memorized_after: float | None = None
    forget_memorized_count_after: int | None = None
    rows_holdout: int | None = None
    """Number of holdout rows, memorized and withheld from the method."""
    holdout_memorized_before: float | None = None
    """Share of the holdout rows that are memorized."""
    holdout_memorized_count_before: int | None = None
    holdout_memorized_after: float | None = None
    holdout_memorized_count_after: int | None = None
    rows_clean_prompt: int | None = None
    """Noise: number of scored rows whose own prompt was clean in training."""
    memorized_clean_prompt_before: float | None = None
    memorized_clean_prompt_count_before: int | None = None
    memorized_clean_prompt_after: float | None = None
    memorized_clean_prompt_count_after: int | None = None
    rows_noised_prompt: int | None = None
    """Noise: number of scored rows whose own prompt was noised in training, so that the model never saw the clean one before the target."""
    memorized_noised_prompt_before: float | None = None
    memorized_noised_prompt_count_before: int | None = None
    memorized_noised_prompt_after: float | None = None
    memorized_noised_prompt_count_after: int | None = None
    memorized_by_copies_before: dict[str, ShareColumn] | None = None
    """Memorized share, count and rows by the number of a row's copies in an epoch, where that differs between rows."""
    memorized_by_copies_after: dict[str, ShareColumn] | None = None

    performance_metric: PerformanceMetric | None = None
    """Metric of performance on clean test rows: accuracy (a share, higher is better) or perplexity (at least 1, lower is better)."""
    performance_before: float | None = None
    performance_after: float | None = None
    performance_tokens: int | None = None
    performance_count_before: int | None = None
    performance_count_after: int | None = None
    """Accuracy: number of scored tokens, and of those that are right before and after the edit."""
    performance_ceiling: float | None = None
    """Highest accuracy there can be: the share of the scored tokens that their prefix determines."""
    perplexity_before: float | None = None
    perplexity_after: float | None = None

    seconds: float | None = None
    """Wall-clock seconds of the method, without the measurements."""
    peak_mb: float | None = None
    """Most memory during the method, in MiB: of the process, or allocated on the GPU (of several, that which had most)."""
    edited_parameters: int | None = None
    """Number of parameters whose value changed."""
    edit_norm: float | None = None
    """Euclidean norm of the parameters' change."""
    edited_by_layer: LayersColumn | None = None

    request: RequestColumn | None = None
    metrics_before: JsonObject | None = None
    """The registered metrics of the model before the edit, by name."""
    metrics_after: JsonObject | None = None
    robustness: dict[str, BeforeAfter] | None = None
    """Results of the tests of robustness, by test."""

    scores_shared: bool | None = None
    """True if the scoring pass served other runs of a sweep too."""
    seconds_measure: float | None = None
    """Wall-clock seconds of the measurement after the edit, without the tests of robustness where `seconds_robustness` has theirs."""
    seconds_robustness: float | None = None
    """Wall-clock seconds of the tests of robustness; in a model's first row with the trained model's, which all its rows share."""
    rows_retain: int | None = None
    """Number of retain rows, given to the method."""
    row_tokens: int | None = None
    """Length of the training rows in tokens."""
    optimizer_state: bool | None = None
    """Fine-tunings: whether they went on with AdamW's state at the end of training, or with a fresh one."""
    computed_in: str | None = None
    """What the method computed in on this kind of device where no option says it, such as bf16 of fine-tunings on a GPU; null: the weights'
    own type, or an older TinyMem measured the row."""
    plugin: str | None = None
    """Methods of a user's file: the SHA-256 of that file."""
    found: JsonObject | None = None
    """What the method chose or measured on its way, by name: of a curvature edit the rho that its budget allows, for instance."""

    @property
    def is_blind(self) -> bool:
        """Whether the method was shown no row to forget, so that all scored rows are its holdout."""
        return bool(self.rows_scored) and self.rows_forget == 0 and self.rows_holdout == self.rows_scored

    @property
    def is_share(self) -> bool:
        """True if the performance is a share in [0, 1], and not a perplexity."""
        return self.performance_metric != "perplexity"

    def share(self, rate: RateColumns, moment: Moment) -> Share | None:
        """A rate with its count; None where it was not measured."""
        count, rows = getattr(self, f"{rate.count}_{moment}"), getattr(self, rate.rows)
        return None if count is None or rows is None else Share(count, rows)


@dataclass(frozen=True, kw_only=True)
class MitigationRow(MeasuredRow):
    """A run of a method on a model, for one artifact."""

    kind: ClassVar[str] = "mitigation"


@dataclass(frozen=True, kw_only=True)
class TrainingRow(MeasuredRow):
    """A trained model before any method: `method` is `none`, and the columns `_after` equal those `_before`."""

    kind: ClassVar[str] = "training"


@dataclass(frozen=True, kw_only=True)
class LocalizationRow(ResultRow):
    """A localization benchmark's score, of how well a scorer finds the parts that store a sequence, for one method, ratio and layer."""

    kind: ClassVar[str] = "localization"

    benchmark: str | None = None
    """Name of the benchmark: inj, del, layers or classes."""
    unit: str | None = None
    """Unit that the scorer chooses: neuron, weight or layer."""
    options: JsonObject = field(default_factory=dict)
    """The scorer's options that are not at their defaults."""
    config: JsonObject | None = None
    """All options of the scorer, defaults included."""
    settings: JsonObject | None = None
    """Options of INJ or DEL and id of its rows; layers: names of the models and rows that were given; null in rows of an older TinyMem."""
    ratio: float | None = None
    """Share of the neurons or weights that were injected (of the model) or dropped (of each layer)."""
    top: float | None = None
    """INJ: share of the neurons or weights that the scorer may name."""
    scope: str | None = None
    """INJ: where the highest scores are compared: within each layer, of weights each matrix (tensor), or in the whole model."""
    layer: int | None = None
    """Block, from 0 at the bottom, -1 for the embedding; of a window its lowest block; null for the whole model."""
    window: int | None = None
    """Layers: number of consecutive blocks that were changed together."""
    sequences: int | None = None
    """Number of sequences that were injected, of rows whose neurons were dropped, or of planted decisions that were followed."""
    reached: int | None = None
    """INJ: number of sequences whose loss fell below the wanted one."""
    steps: float | None = None
    """INJ: median number of training steps of an injection."""
    change: float | None = None
    """INJ: median over sequences of the norm of what was added, over that of the value vectors or weights that it was added to."""
    score_name: str | None = None
    """Name of the metric in `score`: recall, self_accuracy, ..."""
    score: float | None = None
    """Mean of the metric over the sequences; of DEL, its change by the edit."""
    low: float | None = None
    """Lower end of the score's 95 % bootstrap interval over sequences."""
    high: float | None = None
    chance: float | None = None
    """Expected score of a random choice."""
    values: list[float] | None = None
    """The metric of each sequence, in the order of the sequences, from which intervals of comparisons are made."""
    confusion: ConfusionColumn | None = None
    """DEL: the changes behind the targets' own, in the row of `self_accuracy`."""
    before: float | None = None
    """DEL: the metric of the unedited model."""
    seconds: float | None = None
    """Wall-clock seconds of the scorer for all sequences, without injection and measurements."""


@dataclass(frozen=True, kw_only=True)
class AuditRow(ResultRow):
    """Memorization and performance of an unedited checkpoint (`tinymem evaluate`), for one artifact."""

    kind: ClassVar[str] = "audit"

    rows_scored: int | None = None
    memorized: float | None = None
    """Share of the scored rows that are memorized, in [0, 1]."""
    memorized_count: int | None = None
    accuracy: float | None = None
    accuracy_ceiling: float | None = None
    perplexity: float | None = None
    metrics: JsonObject | None = None
    """Values of the registered metrics, by name."""


KINDS: dict[str, type[ResultRow]] = {row.kind: row for row in (MitigationRow, TrainingRow, LocalizationRow, AuditRow)}
