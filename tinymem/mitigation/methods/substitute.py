"""A module that runs a model under replaced weights."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Substituted(nn.Module):
    """A model with some weights replaced; maps ids [B, T] to logits [B, T, V], and gradients reach the replacements."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._inner = [model]  # in a list: not a submodule, so that nothing of it is registered twice
        self._weights = weights

    def forward(self, ids_BT: Tensor) -> Tensor:
        output = functional_call(self._inner[0], self._weights, (ids_BT,))
        return output if isinstance(output, Tensor) else output.logits


def constants(model: nn.Module, but: Container[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All parameters except `but`, detached, so that autograd stores and computes nothing for them."""
    return {name: p.detach().to(dtype or p.dtype) for name, p in model.named_parameters() if name not in but}
