"""Snapshots: a model in the middle or at the end of its training, for use outside training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinymem.errors import Stopped
from tinymem.results.curve import CurvePoint
from tinymem.training.energy import EnergyEstimate

if TYPE_CHECKING:
    from tinymem.models.gpt2 import GPT


@dataclass(frozen=True)
class TrainingFacts:
    """Precision, device, versions and energy of a model's training, as stored in its checkpoint's `tinymem.json`.

    Attributes:
        precision: fp32 or bf16.
        device: the GPU's name, or cpu.
        processes: that trained it together.
        threads: CPU threads of each; several numbers where training went on with others, None on a GPU.
        ways: what computed its steps: autograd, kernels of whole blocks, or either where training went on otherwise.
        torch: version.
        energy: estimate of energy and carbon, and codecarbon's measurement where there is one.
    """

    precision: str
    device: str
    processes: int
    threads: list[int] | None
    ways: list[str]
    torch: str
    energy: EnergyEstimate


@dataclass(frozen=True)
class Snapshot:
    """A model after some epochs, with its regularizers folded into plain weights.

    Attributes:
        model: a plain GPT-2.
        epoch, step: epochs and steps done.
        metrics: the curve's line of that epoch.
        seconds: spent in steps, over all starts of the run.
        facts: how it was trained.
    """

    model: GPT
    epoch: int
    step: int
    metrics: CurvePoint
    seconds: float
    facts: TrainingFacts


@dataclass(frozen=True)
class Trained(Snapshot):
    """A trained model with its whole curve, whose last line is of this model.

    Attributes:
        curve: a point for each measured epoch.
        stopped: to be raised once the model is kept, where a signal came when nothing was left to train.
    """

    curve: list[CurvePoint]
    stopped: Stopped | None = None


@dataclass(frozen=True)
class Keeper:
    """Storage of snapshots: `has` tells whether an epoch's exists, `save` writes one."""

    has: Callable[[int], bool]
    save: Callable[[Snapshot], None]
