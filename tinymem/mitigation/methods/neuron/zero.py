"""Zero: zero the neurons without which the memorized suffixes become least likely.

Idea: leave one neuron out at a time and see how much the loss of the memorized suffix rises.
Formula: score of neuron i in layer l = mean over rows of loss(suffix | h^l_i = 0 at every position) - loss(suffix). Signed.
Source: Chang et al. 2024, section 3 ("Zero-out"); TinyMem paper, section 3.3. The published TinyMem code keeps the tested neuron and
    zeroes all others, and takes the loss over whole padded rows (`over: row`); its numbers measure that.
Cost: one pass per neuron and row from the neuron's layer up. Skipped exactly: the layers below, neurons that are 0 throughout a row,
    tokens after the suffix, and (our GPT) the last block and the head before the suffix. Other families start at the neuron's block.
Options: ratio, of, scope (per layer), skip_bottom, over, batch_size (rows traced at once), copies (row-neuron pairs in one pass;
    default 32 on a CPU, on a GPU 4096 or as many as 2^30 logits allow).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.mitigation.methods.neuron._below import clean_pass, suffix_losses
from tinymem.mitigation.methods.neuron._common import NeuronConfig, as_scores, cropped, span, width
from tinymem.mitigation.methods.neuron._trace import losses_from, trace
from tinymem.models.adapters import NeuronLayer, captured_neurons, logits, neuron_layers, vocabulary_of
from tinymem.models.gpt2 import GPT
from tinymem.models.spread import refuse_spread

MAXIMUM_LOGITS = 1 << 30
"""Logits of one pass on a GPU, 4 GB in fp32."""
LossesWithout = Callable[[NeuronLayer, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ZeroConfig(NeuronConfig):
    """Options of Zero. The grid is that of the paper's A.3.5."""

    over: Over = "suffix"
    batch_size: int = 64
    copies: int | None = None

    grid: ClassVar[Grid] = grids.NEURON
    published_grid: ClassVar[Grid] = grids.NEURON_RUN


@torch.no_grad()
def by_row(model: nn.Module, data: MitigationData, config: ZeroConfig) -> Tensor:
    """Rise of each row's loss without each neuron [S, L, F]."""
    refuse_spread(model, "zero")
    layers = neuron_layers(model)
    data.bar.expect(len(layers) * -(-len(data.forget) // config.batch_size))
    parts = []
    for rows in data.forget.batches(config.batch_size):
        rows = cropped(Rows.of(rows.ids, 1, rows.length) if config.over == "row" else rows)
        losses_without = _of_gpt(model, rows) if isinstance(model, GPT) else _of_any(model, rows)
        neurons, clean_B = _clean_pass(model, rows)
        rises_BLF = torch.zeros(len(rows), len(layers), width(layers), device=rows.ids.device)
        for layer in layers:
            for row_n, neuron_n in _alive(neurons[layer.index], rows, config.copies or copies_for(model, rows)):
                rises_BLF[row_n, layer.index, neuron_n] = losses_without(layer, row_n, neuron_n) - clean_B[row_n]
            data.bar.advance(1)
        parts.append(rises_BLF)
    return torch.cat(parts)


@scorer("zero", config=ZeroConfig, properties=Properties(unit="neuron", order="zeroth", iterative=True), by_row=by_row)
def zero(model: nn.Module, data: MitigationData, config: ZeroConfig) -> Scores:
    """Mean rise of the loss [neurons] per layer."""
    return as_scores(model, by_row(model, data, config).mean(0), config)


def _clean_pass(model: nn.Module, rows: Rows) -> tuple[list[Tensor], Tensor]:
    with captured_neurons(model) as activations:
        losses_B = row_losses(model, rows, "suffix")
        return list(activations), losses_B


def copies_for(model: nn.Module, rows: Rows) -> int:
    """Row-neuron pairs in one pass: 32 on a CPU, 4,096 on a GPU, where logits of a large vocabulary do not fill its memory before."""
    if not rows.ids.is_cuda:
        return 32
    return max(1, min(4096, MAXIMUM_LOGITS // (rows.ids.shape[1] * vocabulary_of(model))))


def _alive(h_BTF: Tensor, rows: Rows, copies: int) -> Iterator[tuple[Tensor, ...]]:
    """Rows and neurons [n] of the pairs to test: all others are 0 wherever the loss could depend on them."""
    before_end_BT = torch.arange(h_BTF.shape[1], device=h_BTF.device) < rows.end[:, None] - 1
    pairs_N2 = ((h_BTF != 0) & before_end_BT[:, :, None]).any(1).nonzero()
    for pairs_n2 in pairs_N2.split(copies):
        yield pairs_n2.unbind(1)


def _of_gpt(model: GPT, rows: Rows) -> LossesWithout:
    """Continue from the block's clean output minus the neuron's contribution: h_t * v at each position t."""
    clean, (low, high) = trace(model, rows.ids), span(rows)

    def losses_without(layer: NeuronLayer, row_n: Tensor, neuron_n: Tensor) -> Tensor:
        h_nT, v_nD = clean.neurons[layer.index][row_n, :, neuron_n], layer.values_FD()[neuron_n]
        x_nTD = torch.addcmul(clean.outputs[layer.index][row_n], h_nT[:, :, None], v_nD[:, None, :], value=-1)
        return losses_from(model, x_nTD, layer.index + 1, rows.take(row_n), low, high)

    return losses_without


def _of_any(model: nn.Module, rows: Rows) -> LossesWithout:
    """Passes from the neuron's own block on, each copy of a row with one neuron hooked to 0."""
    with clean_pass(model) as clean:
        logits(model, rows.ids, rows.ids.shape[1] - 1)

    def losses_without(layer: NeuronLayer, row_n: Tensor, neuron_n: Tensor) -> Tensor:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            kept_nTF = inputs[0].clone()
            kept_nTF[torch.arange(len(row_n), device=row_n.device), :, neuron_n] = 0
            return (kept_nTF, *inputs[1:])

        handle = layer.module.register_forward_pre_hook(hook)
        try:
            with clean.starting_at(layer.index, row_n):
                return suffix_losses(model, rows.take(row_n))
        finally:
            handle.remove()

    return losses_without
