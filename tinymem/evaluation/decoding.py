"""Greedy decoding of the rows of a probe, from where teacher forcing shows the first mistake."""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.evaluation.view import View
from tinymem.models.adapters import logits_at


@torch.no_grad()
def continuations(view: View, kind: str) -> Tensor:
    """Rows [N, T] whose tokens from prompt to end are what the model writes; the others are the probe's.

    Up to the first token that is not the arg-max, decoding and target agree, so that token is known already.
    """
    rows, scores = view.probe(kind).rows, view.scores["probe", kind]
    written_NT = rows.ids.clone()
    wrong_NT = scores.queried & ~scores.right
    first_N = torch.where(wrong_NT.any(1), wrong_NT.int().argmax(1), rows.end)
    left = torch.nonzero(first_N < rows.end).squeeze(1)
    written_NT[left, first_N[left]] = scores.predicted[left, first_N[left]].long()
    known_N = first_N + 1  # tokens of each row that are known
    while len(left := left[known_N[left] < rows.end[left]]):
        for part in left.split(view.evaluator.batch_size):
            written_NT[part, known_N[part]] = _next(view, written_NT[part], known_N[part])
        known_N[left] += 1
    return written_NT


def _next(view: View, ids_BT: Tensor, known_B: Tensor) -> Tensor:
    """Greedy next token [B] after each row's known tokens; the ids at and after that position are not read."""
    length = int(known_B.max())
    positions_B = torch.arange(len(ids_BT), device=ids_BT.device) * length + known_B - 1
    scores_BV = logits_at(view.model, ids_BT[:, :length], positions_B).float()
    if view.evaluator.forbid is not None:
        scores_BV[:, view.evaluator.forbid] = -torch.inf
    return scores_BV.argmax(-1)
