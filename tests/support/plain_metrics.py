"""Every metric the slow way, from its definition: what tests compare the fast ones with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tinymem.models.adapters import logits


@torch.no_grad()
def greedy(model: nn.Module, prompt: list[int], length: int, forbid: int | None = None) -> list[int]:
    """Write token by token until the row has `length` tokens."""
    row = list(prompt)
    while len(row) < length:
        scores = logits(model, torch.tensor([row]))[0, -1].float()
        if forbid is not None:
            scores[forbid] = -torch.inf
        row.append(int(scores.argmax()))
    return row


@torch.no_grad()
def log_probabilities(model: nn.Module, row: list[int]) -> np.ndarray:
    """ln p(. | tokens before) [T - 1, V] of a row's tokens from the second on, one row at a time."""
    return logits(model, torch.tensor([row]))[0, :-1].double().log_softmax(-1).numpy()


def memorized(model: nn.Module, clean: np.ndarray, planted: np.ndarray, k: int, n: int, forbid: int | None = None) -> list[bool | None]:
    """(n, k) memorization of noised rows given their clean counterparts' prompts; None for a row that equals its twin between k and n."""
    found: list[bool | None] = []
    for twin, row in zip(clean.tolist(), planted.tolist(), strict=True):
        scored = twin[k:n] != row[k:n]
        found.append(greedy(model, twin[:k], n, forbid)[k:] == row[k:n] if scored else None)
    return found


def extraction_strength(model: nn.Module, row: list[int]) -> float:
    """Try every prefix, shortest first; the first token is always given."""
    predictable = len(row) - 1
    for given in range(predictable + 1):
        prefix = row[: 1 + given]
        if given == predictable or greedy(model, prefix, len(row)) == row:
            return 1 - given / predictable
    raise AssertionError


def levenshtein(one: list[int], other: list[int]) -> int:
    """Insertions, deletions and replacements, by the table of Wagner and Fischer."""
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
        before = row
    return before[-1]


def auc(members: Any, others: Any) -> float:
    """Over all pairs."""
    pairs = [1.0 if m > o else 0.5 if m == o else 0.0 for m in members for o in others]
    return sum(pairs) / len(pairs)


def tpr(members: Any, others: Any, rate: float) -> float:
    """Try every threshold."""
    best = 0.0
    for threshold in [*members, *others, np.inf]:
        if np.mean([o >= threshold for o in others]) <= rate:
            best = max(best, float(np.mean([m >= threshold for m in members])))
    return best


@torch.no_grad()
def accuracy_and_loss(model: nn.Module, rows: torch.Tensor, scored: torch.Tensor) -> tuple[int, int, float]:
    """Right tokens, scored tokens and summed loss, one row after the other."""
    right = tokens = 0
    loss = 0.0
    for ids, mask in zip(rows.tolist(), scored.tolist(), strict=True):
        log_p = log_probabilities(model, ids)
        for t in range(1, len(ids)):
            if mask[t]:
                right += int(log_p[t - 1].argmax() == ids[t])
                loss -= float(log_p[t - 1][ids[t]])
                tokens += 1
    return right, tokens, loss


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested values by path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}/{key}").items()}
    return {name: value}


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Counts and nulls alike; other numbers up to the rounding of float32."""
    one, other = flat(found), flat(expected)
    assert set(one) == set(other)
    for name, value in one.items():
        if isinstance(value, float):
            assert value == pytest.approx(other[name], rel=tolerance, abs=1e-6), name
        else:
            assert value == other[name], name
