"""AdamW as the paper trains with it, its learning-rate schedules, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tinymem.recipe.training import Training


class AdamWSettings(Protocol):
    """The options of a recipe that the optimizer reads."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate, above 0."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay rates of the two moments, each in [0, 1)."""

    @property
    def weight_decay(self) -> float:
        """Decoupled weight decay, at least 0."""


FINAL_RATE = 0.05


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: AdamWSettings, *, device: torch.device | None = None
) -> torch.optim.AdamW:
    """AdamW with weight decay on all parameters (the paper's "L2"); with a GPU as `device`, one that CUDA graphs can capture."""
    if device is None or device.type != "cuda":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    from tinymem.training.kernels.flat_adamw import FlatAdamW

    rate = torch.tensor(config.learning_rate, device=device)
    return FlatAdamW(parameters, lr=rate, betas=config.betas, weight_decay=config.weight_decay)


def learning_rate(config: Training, step: int, total_steps: int) -> float:
    """Rate of step `step` (from 0): constant, or half a cosine down to 5 % of the peak; with warm-up steps, either rises to it linearly."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return config.learning_rate * warm
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total_steps)))
    return config.learning_rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every parameter, by `<index>.<name>` (exp_avg and exp_avg_sq shaped as the parameter, step a scalar)."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load copies of the tensors from `optimizer_tensors`; hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone()  # torch would keep the tensor itself and write to it
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
