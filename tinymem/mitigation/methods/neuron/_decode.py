"""Gradients for integrated gradients on our GPT, by decoding one token at a time.

Only the activations of the position that predicts the target are patched, so positions before it keep their clean keys and values: each
(position, step) is one token that goes through the layers above against the clean cache. Since the patched activations enter the residual
stream linearly, the gradient is taken there ([D] instead of [F] numbers), averaged over steps, and only then mapped to neurons. Exact.

Shape suffixes: B rows, P positions, M steps, D embedding, F neurons, H heads, K head width, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.neuron._common import span
from tinymem.mitigation.methods.neuron._trace import Trace, head, split_heads, trace
from tinymem.models.adapters import neuron_layers
from tinymem.models.gpt2 import GPT, Block


def mean_gradients(model: GPT, rows: Rows, alpha_M: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Activations and mean gradients [B, T, F] per layer, of the target token's probability over the points `alpha`."""
    clean, (low, high) = trace(model, rows.ids), span(rows)
    targets_BP = rows.ids[:, low + 1 : high + 1]
    found = []
    for layer in neuron_layers(model):
        h_BTF, values_FD = clean.neurons[layer.index], layer.values_FD()
        written_BPD = h_BTF[:, low:high] @ values_FD
        rest_BPD = clean.outputs[layer.index][:, low:high] - written_BPD
        x_BPMD = rest_BPD[:, :, None] + alpha_M.to(h_BTF.dtype)[:, None] * written_BPD[:, :, None]
        gradient_BPD = _gradient(model, x_BPMD, clean, layer.index + 1, low, targets_BP).mean(2)
        gradient_BTF = torch.zeros_like(h_BTF)
        gradient_BTF[:, low:high] = gradient_BPD @ values_FD.T
        found.append((h_BTF, gradient_BTF))
    return found


def _gradient(model: GPT, x_BPMD: Tensor, clean: Trace, start: int, low: int, targets_BP: Tensor) -> Tensor:
    """Gradient of each target's probability with respect to the residual state that enters block `start` at its own position."""
    x_BPMD = x_BPMD.detach().requires_grad_()
    with torch.enable_grad():
        state_BPMD = x_BPMD
        for index, block in list(enumerate(model.transformer.h))[start:]:
            assert isinstance(block, Block)
            state_BPMD = _decode(block, state_BPMD, clean.keys[index], clean.values[index], low)
        probability_BPMV = head(model, state_BPMD).float().softmax(-1)
        index_BPM1 = targets_BP[:, :, None, None].expand(*probability_BPMV.shape[:3], 1)
        return torch.autograd.grad(probability_BPMV.gather(3, index_BPM1).sum(), x_BPMD)[0]


def _decode(block: Block, x_BPMD: Tensor, keys_BHTK: Tensor, values_BHTK: Tensor, low: int) -> Tensor:
    """One block for tokens at positions low, low + 1, ..., each against the clean cache before it and itself."""
    B, P, M, D = x_BPMD.shape
    q_BHNK, k_BHNK, v_BHNK = split_heads(block, block.attn.c_attn(block.ln_1(x_BPMD.view(B, P * M, D))))
    T, K = low + P, q_BHNK.shape[-1]
    q_BHNK = q_BHNK * K**-0.5
    past_BHNT = (q_BHNK @ keys_BHTK[:, :, :T].transpose(2, 3)).view(B, -1, P, M, T)
    sees_PT = torch.ones(P, T, dtype=torch.bool, device=x_BPMD.device).tril(low - 1)
    past_BHNT = past_BHNT.masked_fill(~sees_PT[:, None, :], float("-inf")).view(B, -1, P * M, T)
    own_BHN1 = (q_BHNK * k_BHNK).sum(-1, keepdim=True)
    weights = torch.cat([past_BHNT, own_BHN1], dim=-1).softmax(-1)
    y_BHNK = weights[..., :T] @ values_BHTK[:, :, :T] + weights[..., T:] * v_BHNK
    x_BPMD = x_BPMD + block.attn.c_proj(y_BHNK.transpose(1, 2).reshape(B, P, M, D))
    return x_BPMD + block.mlp(block.ln_2(x_BPMD))
