"""A module that runs a model under replaced weights."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tinymem.models.adapters import logits


class Substituted(nn.Module):
    """A model with some weights replaced; maps ids [B, T] to logits from a position on, and gradients reach the replacements."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._inner = [_Logits(model)]  # in a list: not a submodule, so that nothing of it is registered twice
        self._weights = {f"model.{name}": weight for name, weight in weights.items()}

    def forward(self, ids_BT: Tensor, start: int = 0) -> Tensor:
        """Logits [B, T - start, V]."""
        found: Tensor = functional_call(self._inner[0], self._weights, (ids_BT, start))
        return found


class _Logits(nn.Module):
    """`logits` as a module, through whose parameters they can be replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, start: int) -> Tensor:
        return logits(self.model, ids_BT, start)


def constants(model: nn.Module, but: Container[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All parameters except `but`, detached, so that autograd stores and computes nothing for them."""
    return {name: p.detach().to(dtype or p.dtype) for name, p in model.named_parameters() if name not in but}
