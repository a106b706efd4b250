"""The weight methods computed as the published code computes; see `plain_loops`."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.bench.plain_loops import losses_of
from tinymem.data.rows import concatenate
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.weight._learned_mask import initial_scores
from tinymem.models.adapters import in_out
from tinymem.models.gpt2 import GPT


def mlp_weights(model: nn.Module, *, matrices: bool = False) -> dict[str, nn.Parameter]:
    """Feed-forward parameters of the model by name."""
    return {n: p for n, p in model.named_parameters() if ".mlp." in n and (p.dim() == 2 or not matrices)}


def durable(model: GPT, data: MitigationData, ratio: float, *, aggregate: bool) -> dict[str, Tensor]:
    """Absolute gradients by name; then sorts each tensor (or all as one Python list) and edits a copy, as a run does."""
    for rows in data.forget.batches(64):
        losses_of(model, rows, suffix=False).sum().backward(retain_graph=True)
    scores = {n: p.grad.abs().clone() for n, p in mlp_weights(model).items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    edited = deepcopy(model)
    if aggregate:
        flat = torch.cat([s.flatten() for s in scores.values()])
        chosen = set(flat.argsort(descending=True)[: int(ratio * len(flat))].tolist())
        place = 0
        for parameter in mlp_weights(edited).values():
            inside = [i - place for i in range(place, place + parameter.numel()) if i in chosen]
            parameter.data.view(-1)[torch.tensor(inside, dtype=torch.long, device=parameter.device)] = 0
            place += parameter.numel()
    else:
        for name, parameter in mlp_weights(edited).items():
            order = scores[name].flatten().argsort(descending=True)
            parameter.data.view(-1)[order[: int(ratio * parameter.numel())]] = 0
    return scores


def sou(model: GPT, data: MitigationData, block: int = 50, damp: float = 1e-7) -> dict[str, Tensor]:
    """Scores w^2 / (2 diag F^-1): for each tensor a pass per row, and a rank-one update of all its inverse blocks after each."""
    scores = {}
    for name, weight in mlp_weights(model).items():
        blocks = -(-weight.numel() // block)
        inverse = torch.eye(block, dtype=torch.float64, device=weight.device).expand(blocks, block, block) / damp
        for rows in data.forget.batches(1):
            model.zero_grad(set_to_none=True)
            losses_of(model, rows, suffix=False).sum().backward()
            assert weight.grad is not None
            published = in_out(model, weight.grad)
            g = F.pad(published.flatten(), (0, -weight.numel() % block)).view(blocks, block, 1).double()
            moved = inverse @ g
            inverse = inverse - moved @ moved.transpose(1, 2) / (len(data.forget) + g.transpose(1, 2) @ moved)
        diagonal = inverse.diagonal(dim1=1, dim2=2).flatten()[: weight.numel()].view(in_out(model, weight).shape)
        scores[name] = weight.detach().double().square() / (2 * in_out(model, diagonal))
    model.zero_grad(set_to_none=True)
    return scores


def greedy(model: GPT, data: MitigationData, batches: list[Tensor]) -> list[tuple[str, int]]:
    """Choice of the removed weights, one a batch: a deep copy of all gradients a step, and an arg-max per tensor in Python."""
    edited, rows = deepcopy(model), concatenate([data.forget, data.retain])
    removed: list[tuple[str, int]] = []
    for index in batches:
        index = index.to(rows.ids.device)
        losses = losses_of(edited, rows.take(index), suffix=False)
        edited.zero_grad(set_to_none=True)
        torch.where(index < len(data.forget), -losses, losses).sum().backward()
        gradients = deepcopy({n: p.grad for n, p in edited.named_parameters()})
        best, where = -math.inf, ("", 0)
        for name, parameter in mlp_weights(edited).items():
            value = (parameter.detach() * gradients[name]).flatten()  # type: ignore[operator]
            top = int(value.argmax())
            if value[top].item() > best:
                best, where = value[top].item(), (name, top)
        edited.get_parameter(where[0]).data.view(-1)[where[1]] = 0
        removed.append(where)
    return removed


class _Drop(torch.autograd.Function):
    """Mask with 1 for the share of weights with the highest |score|, by a full sort; the gradient goes straight to |score|."""

    @staticmethod
    def forward(_: object, scores: Tensor, ratio: float) -> Tensor:
        drop = torch.zeros(scores.numel(), device=scores.device)
        drop[scores.flatten().argsort(descending=True)[: int(ratio * scores.numel() + 1e-6)]] = 1
        return drop.view_as(scores)

    @staticmethod
    def backward(_: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def subnet(model: GPT, data: MitigationData, epochs: int, ratio: float, loss_weight: float) -> Tensor:
    """Mask [P] of the dropped weights of all matrices, after some epochs over the shuffled union in batches of 64."""
    generator = data.generator()
    rows, originals = concatenate([data.forget, data.retain]), mlp_weights(model, matrices=True)
    scores = {n: s.requires_grad_() for n, s in initial_scores(model, data.seed).items()}
    optimizer = torch.optim.SGD(list(scores.values()), lr=0.1, momentum=0.9, weight_decay=5e-4)
    draws = (index for _ in range(epochs) for index in torch.randperm(len(rows), generator=generator).split(64))
    for index in draws:
        index = index.to(rows.ids.device)
        weights = {n: originals[n] * (1 - _Drop.apply(s.abs(), ratio)) for n, s in scores.items()}  # type: ignore[no-untyped-call]
        logits = torch.func.functional_call(model, weights, (rows.ids[index],))
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), rows.ids[index][:, 1:], reduction="none").mean(1)
        forget = index < len(data.forget)
        loss = loss_weight * losses[~forget].mean() if (~forget).any().item() else losses.sum() * 0
        if forget.any().item():
            loss = loss - (1 - loss_weight) * losses[forget].mean()
        optimizer.zero_grad()
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    model.zero_grad(set_to_none=True)
    return torch.cat([_Drop.apply(s.detach().abs(), ratio).flatten().cpu() for s in scores.values()])  # type: ignore[no-untyped-call]
