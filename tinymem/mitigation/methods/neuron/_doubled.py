"""Gradients for integrated gradients on models of any family, from rows that hold each token twice.

Only the activations of the position that predicts the target are patched, so positions before it keep their clean keys and values. A row
is written twice: in its second half position t is again position t, sees the clean tokens before t and itself, and nothing else of that
half. One pass from the patched block on is then that of a patch at every position. Positions and mask are arguments of transformers'
models; one that does not heed them, as where attention is local, is found out by its clean pass and takes `_patched.py`.

Shape suffixes: B rows, n (row, step) pairs, T tokens, P predicting positions, F neurons, V vocabulary, m steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.neuron._below import ScaledRows, clean_pass
from tinymem.mitigation.methods.neuron._common import predicting, span
from tinymem.models.adapters import NeuronLayer, captured_neurons, logits, takes

EQUAL = 1e-3
EQUAL_IN_HALF_PRECISION = 0.1
"""Largest distance at a position (root of the mean square) between the logits of either half and a plain pass's, in their standard
deviations: of bf16 a logit of 16 is rounded to eighths."""


@dataclass(frozen=True)
class Doubled(ScaledRows):
    """Each step has a row with each token twice, which counts as two copies; so had the clean pass."""

    options: dict[str, Tensor]
    """Positions [1, 2T] and mask [1, 1, 2T, 2T]."""

    def mean_gradients(self, layer: NeuronLayer, alpha_m: Tensor, copies: int) -> Tensor:
        means_BTF = torch.zeros_like(self.neurons[layer.index])
        rows, steps = (torch.arange(n, device=alpha_m.device) for n in (len(self.rows), len(alpha_m)))
        for pairs_n2 in torch.cartesian_prod(rows, steps).split(max(1, copies // 2)):
            row_n, step_n = pairs_n2.unbind(1)
            means_BTF.index_add_(0, row_n, self._gradients(layer, row_n, alpha_m[step_n]) / len(alpha_m))
        return means_BTF

    def _gradients(self, layer: NeuronLayer, row_n: Tensor, alpha_n: Tensor) -> Tensor:
        rows, (low, high) = self.rows.take(row_n), span(self.rows)
        T, patches = rows.ids.shape[1], []

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            clean_nTF, again_nTF = inputs[0].detach().split(T, dim=1)
            patches.append((alpha_n.to(again_nTF)[:, None, None] * again_nTF).requires_grad_())
            return (torch.cat([clean_nTF, patches[0]], dim=1), *inputs[1:])

        handle = layer.module.register_forward_pre_hook(hook)
        try:
            with self.clean.starting_at(layer.index, row_n):
                logits_nPV = _logits(self.model, rows.ids, self.options, T + low)[:, : high - low].float()
        finally:
            handle.remove()
        target_nP1 = rows.ids[:, low + 1 : high + 1, None]
        probability_nP = logits_nPV.softmax(-1).gather(2, target_nP1)[:, :, 0] * predicting(rows)[:, low:high]
        return torch.autograd.grad(probability_nP.sum(), patches[0])[0]


@torch.no_grad()
def doubled(model: nn.Module, rows: Rows) -> Doubled | None:
    """The rows' clean pass with each token twice; None of a model whose logits are then others in either half."""
    T = rows.ids.shape[1]
    narrow = any(buffer.dim() == 4 and buffer.shape[-1] < 2 * T for buffer in model.buffers())  # a causal mask of the model's own
    if narrow or not takes(model, "position_ids", "attention_mask"):
        return None
    options = _options(T, next(model.parameters()))
    plain_BTV = logits(model, rows.ids).float()
    with captured_neurons(model) as activations, clean_pass(model) as clean:
        twice_B2TV = _logits(model, rows.ids, options)
    half = twice_B2TV.dtype in (torch.bfloat16, torch.float16)
    distance_B2T = (twice_B2TV.float() - plain_BTV.repeat(1, 2, 1)).square().mean(-1).sqrt()
    if distance_B2T.max() > (EQUAL_IN_HALF_PRECISION if half else EQUAL) * plain_BTV.std():
        return None
    return Doubled(model, rows, clean, [h_B2TF[:, :T] for h_B2TF in activations], options)


def _options(T: int, like: Tensor) -> dict[str, Tensor]:
    """Positions, and a mask of numbers to add, since not all ways to compute attention take one of true and false."""
    sees_TT = torch.ones(T, T, dtype=torch.bool, device=like.device).tril()
    before_TT, itself_TT = sees_TT.tril(-1), torch.eye(T, dtype=torch.bool, device=like.device)
    sees = torch.cat([torch.cat([sees_TT, torch.zeros_like(sees_TT)], dim=1), torch.cat([before_TT, itself_TT], dim=1)])
    mask = torch.zeros(sees.shape, dtype=like.dtype, device=like.device).masked_fill_(~sees, torch.finfo(like.dtype).min)
    return {"position_ids": torch.arange(T, device=like.device).repeat(2)[None], "attention_mask": mask[None, None]}


def _logits(model: nn.Module, ids_nT: Tensor, options: dict[str, Tensor], start: int = 0) -> Tensor:
    """Logits of rows with each token twice, from position `start` of twice their length on."""
    given = {name: option.expand(len(ids_nT), *option.shape[1:]) for name, option in options.items()}
    return logits(model, torch.cat([ids_nT, ids_nT], dim=1), start, given)
