"""Recipe section of the model's training."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from tinymem.recipe.data import Section
from tinymem.recipe.kinds import RegularizerSection, short_kinds

Beta = Annotated[float, Field(ge=0, lt=1)]
LARGEST = 2**31 - 1
MOST_EPOCHS = 50
Share = Annotated[float, Field(ge=0, le=1)]


# Settings of a run that shape no weight and no metric.
WITHOUT_EFFECT = ("compile", "kernels", "keep_epochs", "shard_mib", "tensorboard", "energy", "push")


class EnergySection(Section):
    """Assumptions of the estimate of energy and carbon (the paper's equations 4 and 5; its own values are those of table 6)."""

    cpu_watts: float = Field(225, ge=0, le=1e6, description="watts of the machine's CPUs, their thermal design power")
    cpu_usage: Share = Field(0.5, description="share of the CPUs' power that is drawn")
    gpu_watts: float | None = Field(
        None, ge=0, le=1e6, description="watts of a GPU, its thermal design power; null: by its name, 300 if unknown"
    )
    gpu_usage: Share = Field(1.0, description="share of a GPU's power that is drawn")
    memory_gb: float | None = Field(None, ge=0, le=1e6, description="memory of the machine; null: what it has")
    machine_share: Share = Field(1.0, description="share of the CPUs and memory that is charged to this run")
    gpu_share: Share = Field(1.0, description="share of each GPU that is charged to this run")
    pue: float = Field(1.58, ge=1, le=100, description="power usage effectiveness of the building")
    carbon_intensity: float = Field(396, ge=0, le=1e5, description="grams of CO2 a kWh; the paper's 910 kg for 2297 kWh on Polaris")
    country: str = Field("USA", pattern="^[A-Z]{3}$", description="ISO code for codecarbon, where that is installed")


class Training(Section):
    """AdamW with the paper's settings (spec: constant rate, no warm-up, weight decay on everything)."""

    epochs: int = Field(500, ge=0, description="passes over all training rows")
    batch_size: int = Field(128, ge=1, le=LARGEST, description="rows of a training step")
    learning_rate: float = Field(1e-3, gt=0, description="rate of AdamW, before the schedule")
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), description="decay of AdamW's averages of the gradient and of its square")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW, on all parameters")
    schedule: Literal["constant", "cosine"] = Field("constant", description="course of the rate; cosine: half a cosine, down to 5 % of it")
    warmup_steps: int = Field(0, ge=0, description="steps in which the rate rises linearly, under either schedule")
    evaluate_every: int | None = Field(
        None,
        ge=1,
        description="epochs between two measurements; null: a tenth of all, at most 50. A single epoch is measured in its middle too",
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="epochs between two resume points, besides one every five minutes; null: a tenth of all, at most 50"
    )
    keep_epochs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="epochs after which checkpoint and optimizer state are kept"
    )
    shard_mib: int | None = Field(16, ge=1, description="resume points are cut into files of at most so many MiB; null: one file")
    tensorboard: bool = Field(False, description="also write every metric for TensorBoard, under the run's training/tensorboard")
    push: str | None = Field(None, description="ORG/NAME on the Hugging Face Hub, where the kept epochs go as branches when a run ends")
    energy: EnergySection = Field(EnergySection(), description="assumptions of the estimate of energy and carbon")
    regularizers: Annotated[tuple[SerializeAsAny[RegularizerSection], ...], BeforeValidator(short_kinds)] = Field(
        (), description="regularizers, each a kind, `kind: {options}`, or its options with a `kind`"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="numbers of the training step; auto: bf16 on GPUs that have it, else fp32"
    )
    compile: bool | Literal["auto"] = Field("auto", description="torch.compile on GPUs; auto: where the run is long enough to gain")
    kernels: bool | Literal["auto"] = Field(
        "auto", description="on GPUs, a step of whole-block kernels where there is one for the model; auto: where it has been measured"
    )

    @model_validator(mode="after")
    def _check(self) -> Training:
        kinds = [r.kind for r in self.regularizers]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"expected each kind of regularizer at most once, got {kinds}; join the two entries")
        for one, other in combinations(self.regularizers, 2):
            if one.exclusive and one.exclusive == other.exclusive:
                raise ValueError(f"expected one of {one.kind} and {other.kind}, got both, which {one.exclusive}; drop one")
        return self

    @property
    def measured_every(self) -> int:
        """Epochs between two measurements."""
        return self.evaluate_every or self._tenth

    @property
    def measured_midway(self) -> bool:
        """Whether the only epoch is measured in its middle too, so that a curve has more than its ends."""
        return self.epochs == self.measured_every == 1

    @property
    def saved_every(self) -> int:
        """Epochs between two resume points."""
        return self.checkpoint_every or self._tenth

    @property
    def _tenth(self) -> int:
        return min(MOST_EPOCHS, max(1, self.epochs // 10))

    def refusal(self, row_tokens: int) -> str | None:
        """Error message if a regularizer cannot work on rows of so many tokens; else None."""
        return next((wrong for r in self.regularizers if (wrong := r.refusal(row_tokens))), None)

    def key(self) -> dict[str, Any]:
        """Options that determine the weights. Later additions are left out at their default, so that older runs keep their names."""
        values = self.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
        values |= {name: values[name] or MOST_EPOCHS for name in ("evaluate_every", "checkpoint_every")}  # once the default
        return {name: v for name, v in values.items() if (name, v) not in (("regularizers", []), ("precision", "auto"))}
