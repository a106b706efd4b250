"""Our GPT computed once and gone on from the middle, for methods that change one layer at a time (specification of exact speed-ups).

A change of layer l leaves everything below it unchanged: `trace` records the states of the clean pass, `losses_from` continues from layer
l + 1 and computes the head only where the suffix is predicted. Other families take the methods' generic path.

Shape suffixes: B rows, T tokens, D embedding, F neurons, H heads, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.evaluation.perplexity import token_losses
from tinymem.mitigation.methods.neuron._common import predicting
from tinymem.models.gpt2 import GPT, Block


@dataclass(frozen=True)
class Trace:
    """Intermediate values of one forward pass, by layer."""

    neurons: list[Tensor]
    """Activations [B, T, F] of each block's neurons."""
    outputs: list[Tensor]
    """Residual states [B, T, D] after each block."""
    keys: list[Tensor]
    """Attention keys [B, H, T, K] of each block; `values` have the same shape."""
    values: list[Tensor]


def split_heads(block: Block, qkv_BTE: Tensor) -> Tensor:
    """Queries, keys and values [3, B, H, T, K] of a block from its attention's in-projection."""
    B, T, E = qkv_BTE.shape
    heads = block.attn.n_head
    return qkv_BTE.view(B, T, 3, heads, E // 3 // heads).permute(2, 0, 3, 1, 4)


@torch.no_grad()
def trace(model: GPT, ids_BT: Tensor) -> Trace:
    """Run the model on rows and record the states from which later passes start."""
    found = Trace([], [], [], [])

    def keep_qkv(block: Block, qkv_BTE: Tensor) -> None:
        _, keys, values = split_heads(block, qkv_BTE)
        found.keys.append(keys)
        found.values.append(values)

    handles = []
    for block in model.transformer.h:
        assert isinstance(block, Block)
        handles.append(block.mlp.c_proj.register_forward_pre_hook(lambda _, x: found.neurons.append(x[0])))
        handles.append(block.attn.c_attn.register_forward_hook(lambda _m, _x, y, block=block: keep_qkv(block, y)))
        handles.append(block.register_forward_hook(lambda _m, _x, y: found.outputs.append(y)))
    try:
        model.transformer(ids_BT)
    finally:
        for handle in handles:
            handle.remove()
    return found


def losses_from(model: GPT, x_BTD: Tensor, start: int, rows: Rows, low: int, high: int) -> Tensor:
    """Mean suffix loss [B] of rows whose input to block `start` is given (`start` = number of blocks: the final norm's input).

    `low`, `high`: positions that predict the suffixes of all rows lie in [low, high).
    """
    blocks = list(model.transformer.h)[start:]
    for block in blocks[:-1]:
        x_BTD = block(x_BTD)
    x_BTD = _last_block(blocks[-1], x_BTD, low) if blocks else x_BTD[:, low:]
    losses_BP = token_losses(head(model, x_BTD[:, : high - low]), rows.ids[:, low + 1 : high + 1])
    at_BP = predicting(rows)[:, low:high]
    return (losses_BP * at_BP).sum(1) / at_BP.sum(1).clamp(min=1)


def head(model: GPT, x_D: Tensor) -> Tensor:
    """Logits of residual states [..., D]."""
    return F.linear(model.transformer.ln_f(x_D), model.transformer.wte.weight)


def _last_block(block: nn.Module, x_BTD: Tensor, low: int) -> Tensor:
    """Output of the last block at positions from `low` on: no later block reads those before."""
    assert isinstance(block, Block)
    B, T, D = x_BTD.shape
    q_BHTK, k_BHTK, v_BHTK = split_heads(block, block.attn.c_attn(block.ln_1(x_BTD)))
    sees_PT = torch.ones(T - low, T, dtype=torch.bool, device=x_BTD.device).tril(low)
    y_BHPK = F.scaled_dot_product_attention(q_BHTK[:, :, low:], k_BHTK, v_BHTK, attn_mask=sees_PT)
    x_BPD = x_BTD[:, low:] + block.attn.c_proj(y_BHPK.transpose(1, 2).reshape(B, T - low, D))
    return x_BPD + block.mlp(block.ln_2(x_BPD))
