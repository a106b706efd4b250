"""Recipe section of the model's training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tinymem.recipe.data import MAXIMUM_SEED, Section

Beta = Annotated[float, Field(ge=0, lt=1)]
RowId = Annotated[int, Field(ge=0)]
LARGEST = 2**31 - 1
Share = Annotated[float, Field(ge=0, le=1)]
Inference = Literal["off", "all", "ids"]
Factor = Literal[1, "paper", "expectation"]


class SpectralNormSection(Section):
    """Penalty on the largest singular value of every matrix (Yoshida and Miyato 2017)."""

    kind: Literal["spectral-norm"]
    strength: float = Field(0.01, ge=0, description="the paper's lambda: 0.001, 0.01 or 0.1")
    power: Literal[1, 2] = Field(2, description="of sigma; published code has 1")
    projection: Literal["heads", "outputs"] = Field("heads", description="how the attention's out-projection is cut; published: outputs")


class LossTruncationSection(Section):
    """Rows of high loss count as 0 (Kang and Hashimoto 2020)."""

    kind: Literal["loss-truncation"]
    drop: float = Field(0.05, ge=0, lt=1, description="share of the rows: 0.01, 0.05 or 0.1")
    window: int = Field(10_000, ge=2, le=100_000_000, description="rows that the quantile is of; nothing is dropped before so many")
    refresh: int = Field(0, ge=0, le=LARGEST, description="rows before a new quantile; published code has 10000")
    denominator: Literal["batch", "kept"] = Field("batch", description="of the mean: all rows or those kept")


class TiedSection(Section):
    """Options of both regularizers with neurons tied to rows."""

    factor: Factor = Field("expectation", description="of the shared neurons with sinks off")
    inference: Inference = Field("off", description="sinks in evaluation and the saved model: off, all, or those of `ids`")
    ids: tuple[RowId, ...] = Field((), description="training rows whose sinks `inference: ids` switches on")
    excluded: tuple[RowId, ...] = Field((), description="training rows whose sinks are off whatever the mode")
    salt_layers: bool = Field(False, description="other sinks in every block")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of the hash")

    @model_validator(mode="after")
    def _check_ids(self) -> TiedSection:
        if bool(self.ids) != (self.inference == "ids"):
            raise ValueError(f"expected ids with `inference: ids` and with it alone, got inference {self.inference} and ids {self.ids}")
        return self


class ExampleTiedDropoutSection(TiedSection):
    """Separate neurons for every row, dropped after training (Maini et al. 2023)."""

    kind: Literal["example-tied-dropout"]
    fixed: float = Field(0.2, gt=0, lt=1, description="part of the neurons that is always on")
    memory: Share = Field(0.1, description="probability that a row has a neuron of the others: 0.01, 0.05 or 0.1")


class MemSinksSection(TiedSection):
    """Sequence-tied neurons (arXiv 2507.09937)."""

    kind: Literal["mem-sinks"]
    general: float = Field(0.7, gt=0, lt=1, description="part of the neurons that is always on")
    memory: Share = Field(0.3, description="probability that a row has a neuron of the others")
    hash: Literal["mix", "published"] = "mix"
    tied: Literal["all", "planted"] = Field("all", description="rows with sinks; `planted` is an oracle")

    @model_validator(mode="after")
    def _check_hash(self) -> MemSinksSection:
        if self.hash == "published" and (self.seed or self.salt_layers):
            raise ValueError("expected no seed and no salt_layers with `hash: published`, which has neither; drop them or take `hash: mix`")
        return self


class GoldfishSection(Section):
    """About one token in k is left out of the loss (Hans et al. 2024)."""

    kind: Literal["goldfish"]
    k: int = Field(4, ge=2)
    width: int = Field(13, ge=1, le=LARGEST, description="tokens that are hashed")
    window: Literal["before", "with-target"] = Field("before", description="published code: with-target")
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="of the hash")

    def too_wide(self, row_tokens: int) -> str | None:
        """Error message if no row has so many tokens to hash, and nothing would be dropped; else None."""
        most = row_tokens - (self.window == "before")
        return (
            f"expected goldfish's width of at most {most} in rows of {row_tokens} tokens, got {self.width}" if self.width > most else None
        )


RegularizerSection = Annotated[
    SpectralNormSection | LossTruncationSection | ExampleTiedDropoutSection | MemSinksSection | GoldfishSection,
    Field(discriminator="kind"),
]


# Settings of a run that shape no weight and no metric.
WITHOUT_EFFECT = ("compile", "keep_epochs", "shard_mib", "tensorboard", "energy")


class EnergySection(Section):
    """Assumptions of the estimate of energy and carbon (the paper's equations 4 and 5; its own values are those of table 6)."""

    cpu_watts: float = Field(225, ge=0, le=1e6, description="thermal design power of the machine's CPUs")
    cpu_usage: Share = Field(0.5, description="how much of it is used")
    gpu_watts: float | None = Field(None, ge=0, le=1e6, description="thermal design power of a GPU; default: by its name, 300 W if unknown")
    gpu_usage: Share = Field(1.0, description="how much of it is used")
    memory_gb: float | None = Field(None, ge=0, le=1e6, description="memory of the machine; default: what it has")
    machine_share: Share = Field(1.0, description="of the CPUs and memory that is charged to this run")
    gpu_share: Share = Field(1.0, description="of each GPU that is charged to this run")
    pue: float = Field(1.58, ge=1, le=100, description="power usage effectiveness of the building")
    carbon_intensity: float = Field(396, ge=0, le=1e5, description="grams of CO2 a kWh; the paper's 910 kg for 2297 kWh on Polaris")
    country: str = Field("USA", pattern="^[A-Z]{3}$", description="ISO code for codecarbon, where that is installed")


class Training(Section):
    """AdamW with the paper's settings (spec: constant rate, no warm-up, weight decay on everything)."""

    epochs: int = Field(500, ge=0)
    batch_size: int = Field(128, ge=1, le=LARGEST)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    weight_decay: float = Field(0.1, ge=0)
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: half a cosine, down to 5 % of the rate")
    warmup_steps: int = Field(0, ge=0, description="in which the rate rises linearly, under either schedule")
    evaluate_every: int = Field(50, ge=1, description="epochs between two measurements")
    checkpoint_every: int = Field(50, ge=1, description="epochs between two resume points")
    keep_epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="epochs after which checkpoint and optimizer state are kept"
    )
    shard_mib: int | None = Field(16, ge=1, description="resume points are cut into files of at most so many MiB; null: one file")
    tensorboard: bool = Field(False, description="also write every metric for TensorBoard, under the run's training/tensorboard")
    energy: EnergySection = EnergySection()
    regularizers: tuple[RegularizerSection, ...] = Field((), description="any of those in tinymem/training/regularizers")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on GPUs that have it, else fp32")
    compile: bool | Literal["auto"] = Field("auto", description="torch.compile on GPUs; auto: where the run is long enough to gain")

    @model_validator(mode="after")
    def _check(self) -> Training:
        kinds = [r.kind for r in self.regularizers]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"expected each kind of regularizer at most once, got {kinds}; join the two entries")
        if {"mem-sinks", "example-tied-dropout"} <= set(kinds):
            raise ValueError("expected one of mem-sinks and example-tied-dropout, got both, which tie the same neurons; drop one")
        return self

    def too_wide(self, row_tokens: int) -> str | None:
        """Error message if a regularizer hashes more tokens than a row has; else None."""
        return next((wrong for r in self.regularizers if isinstance(r, GoldfishSection) and (wrong := r.too_wide(row_tokens))), None)

    def key(self) -> dict[str, Any]:
        """Options that determine the weights. Later additions are left out at their default, so that older runs keep their names."""
        values = self.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
        return {name: v for name, v in values.items() if (name, v) not in (("regularizers", []), ("precision", "auto"))}
