"""Passes that start at the block which a method changes, in a model of any family.

A change of layer l leaves the states below block l as they are: `clean_pass` records them, and inside `starting_at` the model's own pass
takes them in place of those blocks. All else is the model's code, so that masks, positions, norms, parallel residuals and what a family
does to its logits are those of whole passes.

Shape suffixes: B rows, n copies of rows, T tokens, D embedding, P predicting positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.losses import token_losses
from tinymem.mitigation.methods.neuron._common import predicting, span
from tinymem.models.adapters import NeuronLayer, family_of, logits


@dataclass(frozen=True)
class CleanPass:
    """What each block of a model hands on in one pass over rows."""

    blocks: list[nn.Module]
    outputs: list[Any]
    """Residual states [B, T, D], of some families the first of several things."""

    @contextmanager
    def starting_at(self, index: int, row_n: Tensor) -> Iterator[None]:
        """Inside the context a pass over copies of rows computes nothing below block `index`, whose input is the known one."""
        below = self.blocks[:index]
        before = [block.__dict__.get("forward") for block in below]
        try:
            for number, block in enumerate(below):
                block.forward = _handing_on(self.outputs[number], row_n if number == index - 1 else None)
            yield
        finally:
            for block, forward in zip(below, before, strict=True):
                block.__dict__.pop("forward", None)
                if forward is not None:
                    block.forward = forward


@contextmanager
def clean_pass(model: nn.Module) -> Iterator[CleanPass]:
    """Record what a model's blocks hand on in the one pass that is made inside the context."""
    found = CleanPass(list(model.get_submodule(family_of(model).blocks).children()), [])
    handles = [block.register_forward_hook(lambda _m, _x, output: found.outputs.append(output)) for block in found.blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class ScaledRows(ABC):
    """Rows with their clean pass, and the gradients that integrated gradients take from it."""

    model: nn.Module
    rows: Rows
    clean: CleanPass
    neurons: list[Tensor]
    """Activations [B, T, F] of each layer."""

    @abstractmethod
    def mean_gradients(self, layer: NeuronLayer, alpha_m: Tensor, copies: int) -> Tensor:
        """Mean over steps of the gradient [B, T, F] of each target's probability with respect to the patch at its position.

        Args:
            layer: whose activations are scaled.
            alpha_m: the steps [m].
            copies: rows of the usual length that one pass takes at most.
        """


def suffix_losses(model: nn.Module, rows: Rows) -> Tensor:
    """Mean suffix loss [B], with logits from the first position that predicts a suffix token on."""
    low, high = span(rows)
    losses_BP = token_losses(logits(model, rows.ids, low)[:, : high - low], rows.ids[:, low + 1 : high + 1])
    at_BP = predicting(rows)[:, low:high]
    return (losses_BP * at_BP).sum(1) / at_BP.sum(1).clamp(min=1)


def _handing_on(output: Any, row_n: Tensor | None) -> Callable[..., Any]:
    """A block's pass that computes nothing; only the state of the last one below the start, for each copy its row's, is read."""
    if row_n is None:
        return lambda *_, **__: output
    state_BTD = output[0] if isinstance(output, tuple) else output
    state_nTD = state_BTD[row_n.to(state_BTD.device)]
    chosen = (state_nTD, *output[1:]) if isinstance(output, tuple) else state_nTD
    return lambda *_, **__: chosen
