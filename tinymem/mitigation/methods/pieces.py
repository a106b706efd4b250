"""Micro-batches: a large model's batch goes through in pieces that fit the memory, and counts as one batch all the same.

What is computed is a sum over the batch's rows, each with its weight in the whole batch, so that pieces change nothing but rounding. A
model whose weights take less than `LARGE` bytes takes a batch at once. When the memory of a GPU runs out, the piece that failed, and all
after it, are halved, which a warning says; gradients that the failed pass had already given are not added again.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinymem.models.adapters import mlp_parameters, neuron_layers

LARGE = 2 * 2**30
ACTIVATIONS = 7 * 2**30
"""Bytes of activations that a piece of a large model's batch may take, by estimate."""
BESIDE_SCORES = 31 * 2**30
BESIDE_SCORES_MOST = 58 * 2**30
"""Bytes that a method which keeps numbers of each weight may take: six times the model between these bounds, or `ROOM_AT_LEAST` more."""
ROOM_AT_LEAST = 8 * 2**30

TRAINING, TRAINING_AT_LEAST = 40 * 2**30, 11 * 2**29
"""Bytes that training a large model may take, where that leaves more than the second for activations."""

Work = Callable[[Tensor, set[str]], None]
"""(row indices [B], names whose share of these rows is counted already) -> None; adds the names that it counts."""

Add = Callable[[str, Tensor], object]
"""(name of a leaf, its gradient) -> anything."""


class Pieces:
    """How many rows of a model go through at once.

    Args:
        tokens: of a row.
        gradients: whether the activations of all layers are kept, for a backward pass.
        rows: most rows of a piece (None: as many as a large model's activations allow).
    """

    def __init__(self, model: nn.Module, tokens: int, *, gradients: bool, rows: int | None = None) -> None:
        self.rows = rows or rows_at_once(model, tokens, gradients=gradients)

    def run(self, index_B: Tensor, work: Work) -> None:
        """Call `work` on pieces of the batch that are about equally long."""
        for piece in self._cut(index_B):
            self._try(piece, work, frozenset())

    def _cut(self, index_B: Tensor) -> tuple[Tensor, ...]:
        if self.rows is None or len(index_B) <= self.rows:
            return (index_B,)
        return index_B.tensor_split(-(-len(index_B) // self.rows))

    def _try(self, index_B: Tensor, work: Work, counted: frozenset[str]) -> None:
        counting = {*counted}
        try:
            return work(index_B, counting)
        except torch.OutOfMemoryError:
            if len(index_B) == 1 or (index_B.is_cuda and torch.cuda.is_current_stream_capturing()):
                raise
        self._halve(len(index_B))  # out here, where the failed pass is gone
        for half in index_B.tensor_split(2):
            self._try(half, work, frozenset(counting))

    def _halve(self, rows: int) -> None:
        gc.collect()  # what the failed pass kept may hang in a circle
        torch.cuda.empty_cache()
        self.rows = min(self.rows or rows, -(-rows // 2))
        warnings.warn(f"out of memory with {rows} rows at once: batches go on in pieces of {self.rows}, and count as before", stacklevel=4)


def rows_at_once(model: nn.Module, tokens: int, *, gradients: bool, room: int | None = None) -> int | None:
    """Rows whose activations fit `room` bytes (`ACTIVATIONS`); None, for all of a batch, of a model that is not large."""
    parameters = list(model.parameters())
    if size_of(model) < LARGE:
        return None
    layers = neuron_layers(model)
    width, neurons = layers[0].values_FD().shape[1], layers[0].neurons
    a_token = (3 * neurons + 12 * width) * (len(layers) if gradients else 1) + 3 * parameters[0].shape[0]
    return max(1, int((room or ACTIVATIONS) / (a_token * parameters[0].element_size() * tokens)))


def beside_scores(model: nn.Module, tokens: int, *, a_weight: int = 8) -> Pieces:
    """Pieces of a method that keeps a copy of the feed-forward weights, and so many bytes of numbers beside each weight."""
    size = size_of(model)
    held = size + sum(p.numel() * (p.element_size() + a_weight) for p in mlp_parameters(model).values())
    room = max(ROOM_AT_LEAST, max(BESIDE_SCORES, min(6 * size, BESIDE_SCORES_MOST)) - held)
    return Pieces(model, tokens, gradients=True, rows=rows_at_once(model, tokens, gradients=True, room=room))


def beside_training(model: nn.Module, tokens: int) -> Pieces:
    """Pieces of a method that trains a copy of the model: beside both there are gradients and two moments."""
    room = max(TRAINING_AT_LEAST, TRAINING - 5 * size_of(model))
    return Pieces(model, tokens, gradients=True, rows=rows_at_once(model, tokens, gradients=True, room=room))


def size_of(model: nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def add_gradients(pieces: Pieces, index_B: Tensor, objective: Callable[[Tensor], Tensor], leaves: Mapping[str, Tensor], add: Add) -> None:
    """Give `add` the gradients of an objective that is a sum over a batch's rows, piece by piece and leaf by leaf.

    Gradients come as the backward pass reaches their leaves, so that those of two leaves are not held at once; `add` may change them.

    Args:
        pieces: the model's pieces.
        index_B: row indices of the batch.
        objective: the share of some of these rows in it: (row indices) -> scalar.
        leaves: tensors that require gradients, by name.
        add: called with a leaf's name and gradient, once a piece.
    """

    def work(piece: Tensor, counted: set[str]) -> None:
        handles = [leaf.register_post_accumulate_grad_hook(_hook(name, counted, add)) for name, leaf in leaves.items()]
        try:
            torch.autograd.backward(objective(piece), inputs=list(leaves.values()))
        finally:
            for handle, leaf in zip(handles, leaves.values(), strict=True):
                handle.remove()
                leaf.grad = None

    pieces.run(index_B, work)


def summed_gradients(
    pieces: Pieces, parts: Sequence[Tensor], objective: Callable[[Tensor], Tensor], leaves: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The gradients of an objective over a batch, by name; leaves that it does not reach have none. Arguments as of `add_gradients`.

    `parts`: the rows of the batch, those apart that no piece may have together.
    """
    totals: dict[str, Tensor] = {}

    def add(name: str, gradient: Tensor) -> None:
        totals[name] = totals[name].add_(gradient) if name in totals else gradient

    for part in parts:
        add_gradients(pieces, part, objective, leaves, add)
    return totals


def _hook(name: str, counted: set[str], add: Add) -> Callable[[Any], None]:
    def hook(leaf: Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        if name not in counted and gradient is not None:
            add(name, gradient)
            counted.add(name)

    return hook
