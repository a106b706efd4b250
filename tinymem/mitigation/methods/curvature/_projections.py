"""Projections: the matrices of a model that a curvature edit may change, each as [outputs, inputs] whatever its class stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.models.adapters import family_of

Matrices = Literal["feed-forward", "attention", "all"]


@dataclass(frozen=True)
class Projection:
    """A linear layer of one block.

    Attributes:
        name: of its weight, as the model's parameters are named.
        module: the layer; its input is a [.., Q], the gradient of its output g [.., P].
        transposed: whether it stores [Q, P] instead of [P, Q].
    """

    name: str
    module: nn.Module
    transposed: bool = False

    def weight_PQ(self) -> Tensor:
        """The weight [outputs, inputs]: a view, so writing to it edits the model."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.detach().T if self.transposed else weight.detach()

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs P and inputs Q."""
        P, Q = self.weight_PQ().shape
        return P, Q


def projections(model: nn.Module, matrices: Matrices = "feed-forward", layers: tuple[int, ...] = ()) -> list[Projection]:
    """The projections of some blocks, from bottom to top.

    Args:
        model: of any registered family.
        matrices: those into and out of the neurons; the attention's, which are the other linear layers of a block; or both.
        layers: blocks, from 0 at the bottom; none: all.

    Raises:
        UserError: a block that the model lacks.
    """
    family, found = family_of(model), []
    blocks = list(model.get_submodule(family.blocks).children())
    for layer in layers or range(len(blocks)):
        if not 0 <= layer < len(blocks):
            raise UserError(f"expected layers from 0 to {len(blocks) - 1}, got {layer}; 0 is the lowest block")
        feed_forward = {*family.in_projections, family.out_projection}
        for path, module in _linear(blocks[layer]):
            if matrices == "all" or (path in feed_forward) == (matrices == "feed-forward"):
                found.append(Projection(f"{family.blocks}.{layer}.{path}.weight", module, family.transposed))
    return found


def _linear(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of a block, of torch's class or transformers' Conv1D, with their paths."""
    for path, module in block.named_modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            yield path, module
