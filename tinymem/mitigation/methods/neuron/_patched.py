"""Gradients for integrated gradients on models of any family, a copy of the row for each (position, step).

Shape suffixes: B rows, n (position, step) pairs, T tokens, F neurons, m steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.neuron._below import ScaledRows, clean_pass
from tinymem.mitigation.methods.neuron._common import predicting
from tinymem.models.adapters import NeuronLayer, captured_neurons, logits


@dataclass(frozen=True)
class Patched(ScaledRows):
    """Each (position, step) has a copy of its row: later tokens do not reach the position's logits."""

    def mean_gradients(self, layer: NeuronLayer, alpha_m: Tensor, copies: int) -> Tensor:
        h_BTF = self.neurons[layer.index]
        means_BTF = torch.zeros_like(h_BTF)
        row_n, at_n = predicting(self.rows).nonzero().unbind(1)
        pairs = torch.cartesian_prod(torch.arange(len(row_n), device=row_n.device), torch.arange(len(alpha_m), device=row_n.device))
        for index in pairs.split(copies):
            pair, step = index.unbind(1)
            row, at = row_n[pair], at_n[pair]
            gradient_nF = self._gradient(row, at, layer, alpha_m[step, None].to(h_BTF.dtype) * h_BTF[row, at])
            means_BTF.index_put_((row, at), gradient_nF / len(alpha_m), accumulate=True)
        return means_BTF

    def _gradient(self, row_n: Tensor, at_n: Tensor, layer: NeuronLayer, patch_nF: Tensor) -> Tensor:
        """Gradient [n, F] of the probability of the token after position `at` with respect to the layer's activations there."""
        every, ids_nT = torch.arange(len(at_n), device=at_n.device), self.rows.ids[row_n]
        patch_nF.requires_grad_()

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0].index_put((every, at_n), patch_nF), *inputs[1:])

        handle = layer.module.register_forward_pre_hook(hook)
        try:
            with self.clean.starting_at(layer.index, row_n):
                probability_n = logits(self.model, ids_nT)[every, at_n].float().softmax(-1)[every, ids_nT[every, at_n + 1]]
        finally:
            handle.remove()
        return torch.autograd.grad(probability_n.sum(), patch_nF)[0]


@torch.no_grad()
def patched(model: nn.Module, rows: Rows) -> Patched:
    """The rows' clean pass."""
    with captured_neurons(model) as activations, clean_pass(model) as clean:
        logits(model, rows.ids, rows.ids.shape[1] - 1)
    return Patched(model, rows, clean, activations)
