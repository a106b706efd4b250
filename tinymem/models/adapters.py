"""Blocks, feed-forward layers and neurons of a model of any registered family (tinymem/models/families.py)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.models.families import Family, family_of_class
from tinymem.models.gpt2 import GPT


@dataclass(frozen=True)
class NeuronLayer:
    """The feed-forward neurons of one block, by the weight of their out-projection."""

    index: int
    module: nn.Module
    weight_name: str
    transposed: bool

    @property
    def weight(self) -> Tensor:
        """The out-projection's weight as the model stores it: [F, D] if `transposed`, else [D, F]."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    def values_FD(self) -> Tensor:
        """Value vectors [neurons, embedding]: a view, so writing to it edits the model."""
        return self.weight if self.transposed else self.weight.T

    @property
    def neurons(self) -> int:
        """Number of feed-forward neurons in this block."""
        return self.values_FD().shape[0]


def family_of(model: nn.Module) -> Family:
    """The registered family of a model.

    Raises:
        UserError: a model class of no family, or of several.
    """
    return family_of_class(type(model).__name__)


def neuron_layers(model: nn.Module) -> list[NeuronLayer]:
    """The feed-forward neurons of each block, from bottom to top."""
    family = family_of(model)
    blocks = model.get_submodule(family.blocks)
    prefix = family.blocks
    return [
        NeuronLayer(i, block.get_submodule(family.out_projection), f"{prefix}.{i}.{family.out_projection}.weight", family.transposed)
        for i, block in enumerate(blocks.children())
    ]


def mlp_parameters(model: nn.Module, *, matrices_only: bool = False) -> dict[str, nn.Parameter]:
    """Weights and biases of the feed-forward blocks by name: the parameters that weight-level unlearners may edit.

    `matrices_only`: without the biases (Subnet and BalancedSubnet).
    """
    family = family_of(model)
    found = {}
    for i, block in enumerate(model.get_submodule(family.blocks).children()):
        for path in (*family.in_projections, family.out_projection):
            for name, parameter in block.get_submodule(path).named_parameters():
                if not matrices_only or parameter.dim() == 2:
                    found[f"{family.blocks}.{i}.{path}.{name}"] = parameter
    return found


def in_out(model: nn.Module, tensor: Tensor) -> Tensor:
    """A view of a feed-forward tensor in the published layout, GPT-2's files': a matrix as [in, out], a bias as it is.

    A model class stores a matrix so, or as [out, in]; applied twice this is the tensor again. What depends on the order of weights (random
    draws, blocks, ties) follows this layout, so that a checkpoint gives one result whichever class holds it.
    """
    return tensor.T if tensor.dim() == 2 and not family_of(model).transposed else tensor


def layer_of(model: nn.Module, parameter_name: str) -> int:
    """Block index of a parameter named as `mlp_parameters` names it."""
    return int(parameter_name.removeprefix(family_of(model).blocks + ".").split(".", 1)[0])


def logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Next-token logits [B, T, V] of any causal language model."""
    output = model(ids_BT)
    return output if isinstance(output, Tensor) else output.logits


def logits_at(model: nn.Module, ids_BT: Tensor, positions_n: Tensor) -> Tensor:
    """The rows [n, V] of `logits(model, ids)` at some positions, which count through the flattened batch.

    Of our GPT only those pass through the language-model head, which is most of the work where the vocabulary is large.
    """
    if isinstance(model, GPT) and not model._forward_hooks and not model._forward_pre_hooks:
        return F.linear(model.transformer(ids_BT).flatten(0, 1)[positions_n], model.transformer.wte.weight)
    return logits(model, ids_BT).flatten(0, 1)[positions_n]


@contextmanager
def captured_neurons(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside the context each forward pass fills the list with the neurons' activations [B, T, F], one entry a layer."""
    layers = neuron_layers(model)
    activations: list[Tensor] = [torch.empty(0)] * len(layers)

    def keep(index: int) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            activations[index] = inputs[0]

        return layers[index].module.register_forward_pre_hook(hook)

    handles = [keep(i) for i in range(len(layers))]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]


def refuse_longer_rows(model: nn.Module, length: int) -> None:
    """Refuse rows that a model has no positions for; a rotary model computes beyond its own, as in transformers: that is a warning.

    Raises:
        UserError: rows of more tokens than the model's configuration has positions.
    """
    config: Any = getattr(model, "config", None)
    positions = config.n_positions if isinstance(model, GPT) else getattr(config, "max_position_embeddings", None)
    if positions is None or length <= positions:
        return
    message = f"rows of at most {positions} tokens (the model's positions), got {length}"
    if getattr(config, "rope_parameters", None) is None:
        raise UserError(f"expected {message}; cut the rows")
    warnings.warn(f"made for {message}: numbers of longer rows say little; cut the rows", stacklevel=2)
