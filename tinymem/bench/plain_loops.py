"""Baselines of the timings: the methods' definitions, computed in the way of the published code.

Our own writing. A Python-level call for each neuron, position, tensor or batch, gradients of all weights, full sorts, deep copies, and a
copy to the CPU wherever the published code makes one. The scores are those of our methods, not the published code's mistakes.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymem.data.rows import Rows
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.neuron.hard_concrete import chance_open, gate
from tinymem.models.gpt2 import GPT, Block


def losses_of(model: GPT, rows: Rows, *, suffix: bool) -> Tensor:
    """Mean loss [B] of each row, from whole logits."""
    losses_BT = F.cross_entropy(model(rows.ids)[:, :-1].transpose(1, 2), rows.ids[:, 1:], reduction="none")
    if not suffix:
        return losses_BT.mean(1)
    window_BT = rows.window()[:, 1:]
    return (losses_BT * window_BT).sum(1) / window_BT.sum(1)


def blocks_of(model: GPT) -> list[Block]:
    """Transformer blocks of the model."""
    return [block for block in model.transformer.h if isinstance(block, Block)]


@torch.no_grad()
def act(model: GPT, data: MitigationData) -> Tensor:
    """Scores [L, F]: all activations to the CPU, then the mean."""
    kept: list[list[Tensor]] = [[] for _ in blocks_of(model)]
    for rows in data.forget.batches(64):
        for i, block in enumerate(blocks_of(model)):
            handle = block.mlp.c_proj.register_forward_pre_hook(lambda _, x, i=i: kept[i].append(x[0].cpu()))
            model(rows.ids)
            handle.remove()
    at_BT = data.forget.window().roll(-1, 1).cpu()
    means = [torch.cat(parts).abs()[at_BT].mean(0) for parts in kept]
    return torch.stack([m * b.mlp.c_proj.weight.norm(dim=0).cpu() for m, b in zip(means, blocks_of(model), strict=True)])


@torch.no_grad()
def zero(model: GPT, data: MitigationData, stride: int) -> Tensor:
    """Scores [L, F / stride] of every `stride`-th neuron, one neuron at a time."""
    clean = losses_of(model, data.forget, suffix=True).mean().item()
    scores = []
    for block in blocks_of(model):
        for neuron in range(0, block.mlp.c_proj.in_features, stride):
            mask = torch.ones(block.mlp.c_proj.in_features, device=data.forget.ids.device)
            mask[neuron] = 0
            handle = block.mlp.c_proj.register_forward_pre_hook(lambda _, x, mask=mask: (x[0] * mask,))
            total = sum(losses_of(model, rows, suffix=True).sum().item() for rows in data.forget.batches(64))
            handle.remove()
            scores.append(total / len(data.forget) - clean)
    return torch.tensor(scores).view(len(blocks_of(model)), -1)


def ig(model: GPT, data: MitigationData, steps: int = 20, chunk: int = 2) -> Tensor:
    """Scores [L, F]: row by row, layer by layer, position by position, `chunk` points a pass over the prefix."""
    scores = [torch.zeros(b.mlp.c_proj.in_features) for b in blocks_of(model)]
    for ids_T, start, end in zip(data.forget.ids, data.forget.prompt.tolist(), data.forget.end.tolist(), strict=True):
        for layer, block in enumerate(blocks_of(model)):
            for target in range(start, end):
                scores[layer] += _ig_at(model, block, ids_T, target, steps, chunk).cpu() / (end - start)
    return torch.stack(scores) / len(data.forget)


def _ig_at(model: GPT, block: Block, ids_T: Tensor, target: int, steps: int, chunk: int) -> Tensor:
    seen: list[Tensor] = []
    handle = block.mlp.c_proj.register_forward_pre_hook(lambda _, x: seen.append(x[0][0, -1].detach()))
    with torch.no_grad():
        model(ids_T[None, :target])
    handle.remove()
    total = torch.zeros_like(seen[0])
    for alphas in ((torch.arange(steps, device=ids_T.device) + 0.5) / steps).split(chunk):
        patch = (alphas[:, None] * seen[0]).requires_grad_()
        handle = block.mlp.c_proj.register_forward_pre_hook(lambda _, x, patch=patch: torch.cat([x[0][:, :-1], patch[:, None]], dim=1))
        probability = model(ids_T[None, :target].expand(len(alphas), -1))[:, -1].softmax(-1)[:, ids_T[target]]
        handle.remove()
        total += torch.autograd.grad(probability.sum(), patch)[0].sum(0)
    return seen[0] * total / steps


def gates(model: GPT, data: MitigationData, steps: int, *, hard: bool, penalty: float, rate: float, beta: float = 1 / 3) -> Tensor:
    """Parameters [L, F] of Slim or Hard Concrete after `steps` on all rows, with gradients of all weights."""
    blocks = blocks_of(model)
    shape = (len(blocks), blocks[0].mlp.c_proj.in_features)
    free = (torch.zeros if hard else torch.ones)(shape, device=data.forget.ids.device).requires_grad_()
    optimizer, generator = torch.optim.Adam([free], lr=rate), data.generator()
    for _ in range(steps):
        noise = torch.rand(shape, generator=generator).to(free.device) if hard else free
        opened = gate(free, noise, beta) if hard else free.clamp(0, 1)
        handles = [b.mlp.c_proj.register_forward_pre_hook(lambda _, x, g=g: (x[0] * g,)) for b, g in zip(blocks, opened, strict=True)]
        price = (chance_open(free, beta) if hard else free.abs()).mean()
        loss = losses_of(model, data.forget, suffix=True).mean() + penalty * price
        optimizer.zero_grad()
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for handle in handles:
            handle.remove()
        deepcopy(free.detach().cpu())
    model.zero_grad(set_to_none=True)
    return free.detach().cpu()
