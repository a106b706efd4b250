"""AdamW of models in fp32, torch's, and in bf16, which rounds at random, since most steps are smaller than half a bf16 step.

A weight of bf16 keeps 8 bits: a step below 1/512 of it is lost in rounding to nearest, always. Rounded up or down with the probability of
its distance, the weight is right in the mean, without a copy in fp32. Moments are kept in the same way: 6 bytes a parameter in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.runtime.device import triton_there

BETAS, EPSILON = (0.9, 0.999), 1e-8
CHUNK = 2**24
"""Parameters that take a step at once where no kernel runs."""


class Optimizer(Protocol):
    """What takes the steps of a descent, by the parameters' gradients."""

    def step(self) -> object:
        """One step; parameters without a gradient stay."""


def refuse_fp16(model: nn.Module, what: str = "a method that trains it") -> None:
    """Raise UserError for a model in fp16: its smallest steps and gradients are 0. `what` it is needed for."""
    if any(p.dtype == torch.float16 for p in model.parameters()):
        raise UserError(f"expected a model in bf16 or fp32 for {what}, got fp16; load it with dtype bf16 or fp32")


def in_bf16(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether some parameters are in bf16, so that their steps have to be rounded at random."""
    return any(p.dtype == torch.bfloat16 for p in parameters)


def optimizer_of(
    parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float, seed: int, betas: tuple[float, float] = BETAS
) -> Optimizer:
    """AdamW for parameters of one type: with stochastic rounding in bf16."""
    if in_bf16(parameters):
        return RoundedAdamW(parameters, learning_rate, weight_decay, seed, betas)
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, betas=betas)


class RoundedAdamW:
    """AdamW whose parameters and moments may be bf16, computed in fp32 and rounded at random where they are.

    Args:
        parameters: in bf16 or fp32; moments have the type of their parameter.
        learning_rate, weight_decay, betas: as of AdamW.
        seed: of the rounding; the same seed gives the same weights on the same kind of device.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float, seed: int, betas: tuple[float, float] = BETAS
    ) -> None:
        self.parameters, self.rate, self.decay, self.seed, self.betas, self.steps = parameters, learning_rate, weight_decay, seed, betas, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the state of an AdamW, as `tinymem.training.optimizer.optimizer_tensors` gives it."""
        for k, moments in enumerate(self.moments):
            for moment, name in zip(moments, ("exp_avg", "exp_avg_sq"), strict=True):
                moment.copy_(state[f"{k}.{name}"])
        self.steps = int(state["0.step"])

    @torch.no_grad()
    def step(self) -> None:
        """One step; parameters without a gradient stay."""
        self.steps += 1
        for k, (parameter, moments) in enumerate(zip(self.parameters, self.moments, strict=True)):
            if parameter.grad is not None:
                seed = (self.seed * 1_000_003 + self.steps) * 100_003 + k
                self._step(parameter, parameter.grad.contiguous(), moments, seed % 2**31)

    def _step(self, parameter: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], seed: int) -> None:
        corrections = 1 - self.betas[0] ** self.steps, 1 - self.betas[1] ** self.steps
        weights, gradients, means, squares = (tensor.view(-1) for tensor in (parameter, gradient, *moments))
        if parameter.is_cuda and parameter.dtype == torch.bfloat16 and triton_there():
            from tinymem.training.kernels.rounded_adamw import step

            sizes = {"rate": self.rate, "decay": self.decay, "epsilon": EPSILON}
            step(weights, gradients, means, squares, seed, betas=self.betas, corrections=corrections, **sizes)
            return
        generator = torch.Generator(parameter.device).manual_seed(seed)
        for weight_n, gradient_n, mean_n, square_n in zip(*(p.split(CHUNK) for p in (weights, gradients, means, squares)), strict=True):
            change = gradient_n.float()
            mean = mean_n.float().lerp_(change, 1 - self.betas[0])
            square = square_n.float().lerp_(change.square(), 1 - self.betas[1])
            denominator = (square / corrections[1]).sqrt_().add_(EPSILON)
            weight = weight_n.float().mul_(1 - self.rate * self.decay).addcdiv_(mean, denominator, value=-self.rate / corrections[0])
            for kept, value in ((weight_n, weight), (mean_n, mean), (square_n, square)):
                kept.copy_(rounded(value, generator) if kept.dtype == torch.bfloat16 else value)


def rounded(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 values as bf16, up or down at random so that the mean is right; what bf16 holds stays as it is."""
    noise = torch.randint(0, 2**16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    return ((values.view(torch.int32) + noise) & -(2**16)).view(torch.float32).bfloat16()
