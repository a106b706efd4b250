"""AdamW in one kernel over one flat buffer: for models whose dozens of small tensors leave most of a GPU idle.

torch's fused AdamW gives every 65,536 elements to one block, some sixty blocks for a 4-layer model: 90 us a step on an H100. Here the
parameters and their moments are views of three buffers, and gradients are joined once a step. State and results are those of
`torch.optim.AdamW` up to rounding; its `state_dict` has the same form.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.optim import AdamW

from tinymem.training.kernels.launch import launch

BLOCK = 1024


@triton.jit
def _adamw(p, g, m, v, lr, step, n, beta1, beta2, log_beta1, log_beta2, decay, eps, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    rate, t = tl.load(lr), tl.load(step)
    correction1, correction2 = 1 - tl.exp2(t * log_beta1), 1 - tl.exp2(t * log_beta2)
    gradient = tl.load(g + at, mask=mask)
    first = beta1 * tl.load(m + at, mask=mask) + (1 - beta1) * gradient
    second = beta2 * tl.load(v + at, mask=mask) + (1 - beta2) * gradient * gradient
    scale = tl.sqrt(second) / tl.sqrt(correction2) + eps
    weight = tl.load(p + at, mask=mask) * (1 - rate * decay) - rate / correction1 * first / scale
    tl.store(p + at, weight, mask=mask)
    tl.store(m + at, first, mask=mask)
    tl.store(v + at, second, mask=mask)


class FlatAdamW(AdamW):
    """AdamW of fp32 parameters on one GPU; the learning rate is a tensor on it, so that a CUDA graph can hold the step.

    Moves the parameters into one buffer: build it when the model is on its device, before anything keeps their addresses.
    """

    # As torch decorates these, their first call imports torch.compile, which takes seconds and has no part in this.
    add_param_group, state_dict, zero_grad = unwrap(AdamW.add_param_group), unwrap(AdamW.state_dict), unwrap(AdamW.zero_grad)

    def __init__(self, params: Iterable[nn.Parameter], *, lr: Tensor, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, capturable=True)
        self._parameters: list[nn.Parameter] = self.param_groups[0]["params"]
        self._weights = torch.cat([p.detach().flatten() for p in self._parameters])
        self._first, self._second = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self._step = torch.zeros((), device=lr.device)
        for parameter, view in zip(self._parameters, self._views(self._weights), strict=True):
            parameter.data = view
        self._link()

    @property
    def flat(self) -> Tensor:
        """All parameters, one after another: those of the model are views of it."""
        return self._weights

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters from their gradients."""
        gradients = torch.cat([p.grad.flatten() for p in self._parameters if p.grad is not None])
        if gradients.numel() != self._weights.numel():
            raise RuntimeError("a parameter has no gradient; FlatAdamW updates all or none")
        self.update(gradients)

    @torch.no_grad()
    def update(self, gradients: Tensor) -> None:
        """Update all parameters from their gradients, one after another in a flat tensor."""
        self._step += 1
        self.launch_update(gradients)

    def launch_update(self, gradients: Tensor) -> None:
        """Launch the kernel of a step that has been counted."""
        group = self.param_groups[0]
        (beta1, beta2), n = group["betas"], self._weights.numel()
        logs = (math.log2(beta) if beta else -math.inf for beta in (beta1, beta2))
        buffers = (self._weights, gradients, self._first, self._second, group["lr"], self._step)
        launch(_adamw, triton.cdiv(n, BLOCK))(*buffers, n, beta1, beta2, *logs, group["weight_decay"], group["eps"], BLOCK=BLOCK)

    def link_gradients(self, gradients: Tensor) -> None:
        """Make views of a flat gradient those of the parameters, so that backward passes add to it."""
        for parameter, view in zip(self._parameters, self._views(gradients), strict=True):
            parameter.grad = view

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state of this class or of AdamW."""
        unwrap(AdamW.load_state_dict)(self, state_dict)
        loaded = [self.state[p] for p in self._parameters]
        for name, buffer in (("exp_avg", self._first), ("exp_avg_sq", self._second)):
            buffer.copy_(torch.cat([state[name].flatten() for state in loaded]))
        self._step.copy_(loaded[0]["step"])
        self._link()

    def _link(self) -> None:
        """Make views of the buffers the state of each parameter."""
        for parameter, first, second in zip(self._parameters, self._views(self._first), self._views(self._second), strict=True):
            self.state[parameter] = {"step": self._step, "exp_avg": first, "exp_avg_sq": second}

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([p.numel() for p in self._parameters])
        return [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
