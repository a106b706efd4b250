"""The pass that measures curvature: second moments of a projection's inputs and of the gradients of its outputs.

A = E[a a^T], G = E[g g^T] over positions; the Fisher block of W [P, Q] is taken to be G x A (Kronecker). The loss is a sum over positions,
so that neither batches nor the rows beside a row change its gradients. The positions are those whose next token is a row's own: padding
and the last position are left out. Sums are fp32 within a batch and fp64 over batches.

Shape suffixes: B rows of a batch, T tokens, n positions that count, V vocabulary, P outputs, Q inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.curvature._projections import Projection
from tinymem.mitigation.methods.pieces import rows_at_once
from tinymem.models.adapters import logits, vocabulary_of
from tinymem.runtime.progress import Bar, SilentBar

Labels = Literal["sampled", "gold"]
Objectives = Callable[[Tensor, Tensor], list[Tensor]]
"""(logits [n, V] in fp32, next tokens [n] of the rows) -> losses, each a sum over positions; G sums over them, A does not."""
TOKENS = {"cpu": 4096, "cuda": 1 << 16}
"""Tokens of a batch of a model that is not large."""
LOGITS = 4 * 2**30
"""Most bytes of a batch's logits in fp64, of which drawing labels holds three: a vocabulary above 8,192 takes fewer rows on a GPU."""


@dataclass(frozen=True)
class Flow:
    """What went through a projection in one batch: inputs [B, T, Q] and gradients of its outputs [B, T, P], in fp32."""

    inputs_BTQ: Tensor
    gradients_BTP: Tensor


@dataclass
class Moments:
    """Second moments A [Q, Q] and G [P, P] in fp64 of one projection."""

    A_QQ: Tensor
    G_PP: Tensor

    @staticmethod
    def zeros(projection: Projection) -> Moments:
        """Moments before the first batch, on the projection's device."""
        (P, Q), weight = projection.shape, projection.weight_PQ()
        A_QQ, G_PP = (torch.zeros(size, size, dtype=torch.float64, device=weight.device) for size in (Q, P))
        return Moments(A_QQ, G_PP)


def moments(
    model: nn.Module, rows: Rows, found: Sequence[Projection], objectives: Objectives, *, batch: int = 0, bar: Bar | None = None
) -> list[Moments]:
    """A and G of some projections over rows, means over positions.

    Args:
        model: which is left as it is.
        rows: on the model's device.
        found: the projections.
        objectives: the losses whose gradients G is made of.
        batch: rows at a time; 0: as many as suit the device.
        bar: advances by the number of rows.
    """
    sums, positions = [Moments.zeros(projection) for projection in found], 0
    for piece in rows.batches(batch or batch_rows(model, rows)):
        valid_BT = counted(piece)
        positions += int(valid_BT.sum())
        for number, flows in enumerate(gradients(model, piece, found, objectives)):
            for total, flow in zip(sums, flows, strict=True):
                _add(total, flow, valid_BT, inputs=number == 0)
        (bar or SilentBar()).advance(len(piece))
    for total in sums:
        total.A_QQ /= max(1, positions)
        total.G_PP /= max(1, positions)
    return sums


def _add(total: Moments, flow: Flow, valid_BT: Tensor, *, inputs: bool) -> None:
    a_nQ, g_nP = flow.inputs_BTQ[valid_BT], flow.gradients_BTP[valid_BT]
    total.G_PP += (g_nP.T @ g_nP).double()
    if inputs:
        total.A_QQ += (a_nQ.T @ a_nQ).double()


def gradients(model: nn.Module, rows: Rows, found: Sequence[Projection], objectives: Objectives) -> Iterator[list[Flow]]:
    """Yield, for each loss of one batch, what flows through each projection."""
    valid_BT = counted(rows)
    with torch.enable_grad(), _watched(found) as (inputs, outputs):
        scores_nV = logits(model, rows.ids)[valid_BT].float()
        losses = objectives(scores_nV, rows.ids.roll(-1, 1)[valid_BT])
        for place, loss in enumerate(losses):
            made = torch.autograd.grad(loss, outputs, retain_graph=place + 1 < len(losses))
            yield [Flow(a.float(), g.float()) for a, g in zip(inputs, made, strict=True)]


@torch.no_grad()
def passed(model: nn.Module, rows: Rows, found: Sequence[Projection]) -> list[Tensor]:
    """The inputs [B, T, Q] of each projection in one batch, in fp32."""
    with _watched(found) as (inputs, _):
        logits(model, rows.ids)
    return [a.float() for a in inputs]


@contextmanager
def _watched(found: Sequence[Projection]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Inside the context a forward pass fills the lists with each projection's inputs, without gradients, and its outputs."""
    inputs, outputs = [torch.empty(0)] * len(found), [torch.empty(0)] * len(found)

    def hook_of(place: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[place], outputs[place] = given[0].detach(), output

        return keep

    handles = [projection.module.register_forward_hook(hook_of(place)) for place, projection in enumerate(found)]
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def counted(rows: Rows) -> Tensor:
    """Positions [N, T] whose next token is the row's own and not padding."""
    end_N = rows.end if rows.length is None else rows.length
    return torch.arange(1, rows.ids.shape[1] + 1, device=rows.ids.device)[None, :] < end_N[:, None]


def batch_rows(model: nn.Module, rows: Rows) -> int:
    """Rows of a batch that suit the model's size, its vocabulary and the device."""
    tokens = rows.ids.shape[1]
    most = min(TOKENS[rows.ids.device.type], LOGITS // (8 * vocabulary_of(model)))
    return rows_at_once(model, tokens, gradients=True) or max(1, most // tokens)


def objectives_of(labels: Labels, generator: torch.Generator) -> Objectives:
    """The loss of labels that the model draws itself, or of the rows' own tokens.

    A draw takes a number from the generator for each position in turn, so that the batches' size does not change it.
    """

    def one(scores_nV: Tensor, gold_n: Tensor) -> list[Tensor]:
        return [F.cross_entropy(scores_nV, gold_n if labels == "gold" else drawn(scores_nV, generator), reduction="sum")]

    return one


@torch.no_grad()
def drawn(scores_nV: Tensor, generator: torch.Generator) -> Tensor:
    """A token [n] for each position by the model's probabilities: the first whose cumulated probability exceeds a uniform number."""
    uniform_n = torch.rand(len(scores_nV), generator=generator, dtype=torch.float64).to(scores_nV.device)
    cumulated_nV = scores_nV.double().softmax(1).cumsum(1)
    return torch.searchsorted(cumulated_nV, uniform_n[:, None], right=True)[:, 0].clamp(max=scores_nV.shape[1] - 1)
