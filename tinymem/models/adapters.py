"""Blocks, feed-forward layers and neurons of a model of any registered family (tinymem/models/families.py)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
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


def _projection(block: nn.Module, family: Family, path: str) -> nn.Module:
    """A feed-forward projection of a block, whose matrix lies as the family says: one entry of the table holds for all of them.

    Raises:
        UserError: it lies the other way round.
    """
    module = block.get_submodule(path)
    by_class = False if isinstance(module, nn.Linear) else True if type(module).__name__ == "Conv1D" else None
    if by_class is not None and by_class != family.transposed:
        says, lies = ("[in, out]", "[out, in]") if family.transposed else ("[out, in]", "[in, out]")
        raise UserError(
            f"expected all feed-forward matrices of {family.model_class} as {says}, which its family '{family.name}' says, got {path} "
            f"({type(module).__name__}) as {lies}; set transposed={by_class} if all are so; a class that mixes them is not supported"
        )
    return module


def neuron_layers(model: nn.Module) -> list[NeuronLayer]:
    """The feed-forward neurons of each block, from bottom to top."""
    family = family_of(model)
    blocks = model.get_submodule(family.blocks)
    prefix = family.blocks
    return [
        NeuronLayer(i, _projection(block, family, family.out_projection), f"{prefix}.{i}.{family.out_projection}.weight", family.transposed)
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
            for name, parameter in _projection(block, family, path).named_parameters():
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


def vocabulary_of(model: nn.Module) -> int:
    """Number of token ids that a model knows: rows of its embedding, which may be more than its tokenizer has."""
    return next(p for p in model.parameters() if p.dim() == 2).shape[0]  # the token embedding comes first


def dtype_name(model: nn.Module) -> str:
    """The type of a model's weights, as float32 or bfloat16."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def logits(model: nn.Module, ids_BT: Tensor, start: int = 0, further: Mapping[str, Tensor] | None = None) -> Tensor:
    """Next-token logits [B, T - start, V] of any causal language model at the positions from `start` on; no cache of keys is built.

    `further`: arguments that the model takes beside the ids (`takes`).
    """
    options: dict[str, int] = {"use_cache": False} if "use_cache" in _arguments(type(model).forward) else {}
    narrow = _narrowing(model) if start else None
    if narrow:
        options[narrow] = start if narrow == "start" else ids_BT.shape[1] - start
    output = model(ids_BT, **options, **(further or {}))
    found: Tensor = output if isinstance(output, Tensor) else output.logits
    return found if narrow or not start else found[:, start:]


def _narrowing(model: nn.Module) -> str | None:
    """The argument of a forward pass that says from where on there are logits."""
    return next((name for name in ("start", "logits_to_keep") if name in _arguments(type(model).forward)), None)


def takes(model: nn.Module, *names: str) -> bool:
    """Whether a model's pass has these arguments."""
    return _arguments(type(model).forward) >= {*names}


def logits_narrow(model: nn.Module) -> bool:
    """Whether `logits` from a later position on makes none of those before it; of our GPT, which is small, it makes all."""
    return _narrowing(model) is not None


@cache
def _arguments(forward: Callable[..., object]) -> frozenset[str]:
    """Names of a forward pass's arguments."""
    return frozenset(inspect.signature(forward).parameters)


def heads_apart(model: nn.Module) -> bool:
    """Whether `logits` from a later position on save the head's work before it, of a large model.

    In fp32 the head runs whole, as it always did: products of other sizes round otherwise.
    """
    halves = all(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
    return halves and "logits_to_keep" in _arguments(type(model).forward)


def logits_at(model: nn.Module, ids_BT: Tensor, positions_n: Tensor) -> Tensor:
    """The rows [n, V] of `logits(model, ids)` at some positions, which count through the flattened batch.

    Of our GPT only those pass through the language-model head, which is most of the work where the vocabulary is large.
    """
    if isinstance(model, GPT) and not model._forward_hooks and not model._forward_pre_hooks:
        return F.linear(model.transformer(ids_BT).flatten(0, 1)[positions_n], model.transformer.wte.weight)
    if not len(positions_n) or not heads_apart(model):
        return logits(model, ids_BT).flatten(0, 1)[positions_n]
    row_n, at_n = positions_n // ids_BT.shape[1], positions_n % ids_BT.shape[1]
    start = int(at_n.min())
    return logits(model, ids_BT, start)[row_n, at_n - start]


@contextmanager
def seen_neurons(model: nn.Module, see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside the context each forward pass calls `see(layer, activations [B, T, F])` for each layer in turn, and keeps none of them."""

    def hook_of(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: see(index, inputs[0])

    handles = [layer.module.register_forward_pre_hook(hook_of(layer.index)) for layer in neuron_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_neurons(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside the context each forward pass fills the list with the neurons' activations [B, T, F], one entry a layer."""
    activations: list[Tensor] = [torch.empty(0)] * len(neuron_layers(model))
    with seen_neurons(model, activations.__setitem__):
        yield activations


def positions_of(model: nn.Module) -> int | None:
    """Number of positions in a model's configuration; None where it names none."""
    config: Any = getattr(model, "config", None)
    positions: int | None = config.n_positions if isinstance(model, GPT) else getattr(config, "max_position_embeddings", None)
    return positions


def _turning(model: nn.Module) -> tuple[str, int] | None:
    """The kind of rotary positions that turn otherwise where a pass has a row beyond some length, and that length; None: they do not."""
    config: Any = getattr(model, "config", None)
    given = getattr(config, "rope_parameters", None) or {}
    for rope in (given, *given.values()):  # one for all layers, or one for each kind of layer
        kind = rope.get("rope_type") if isinstance(rope, dict) else None
        if kind in ("dynamic", "longrope"):
            return kind, rope["original_max_position_embeddings"] if kind == "longrope" else config.max_position_embeddings
    return None


def refuse_longer_rows(model: nn.Module, length: int, remedy: str = "cut the rows") -> None:
    """Refuse rows that a model has no positions for; a rotary model computes beyond its own, as in transformers: that is a warning.

    Where rotary positions follow the longest row of a pass (`dynamic`, `longrope`), a row beyond their length would change the numbers of
    those beside it.

    Raises:
        UserError: rows of more tokens than the model's configuration has positions, or than such positions are the same for all rows.
    """
    turning = _turning(model)
    if turning is not None and length > turning[1]:
        raise UserError(
            f"expected rows of at most {turning[1]} tokens, beyond which a model with {turning[0]} positions computes all rows of a pass "
            f"otherwise, got {length}; {remedy}"
        )
    positions = positions_of(model)
    if positions is None or length <= positions:
        return
    message = f"rows of at most {positions} tokens (the model's positions), got {length}"
    if getattr(getattr(model, "config", None), "rope_parameters", None) is None:
        raise UserError(f"expected {message}; {remedy}")
    warnings.warn(f"made for {message}: numbers of longer rows say little; {remedy}", stacklevel=2)
