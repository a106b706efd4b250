"""Flipped labels: a share of the training rows gets another label, drawn from all but its own (Dankers and Titov 2024, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.errors import UserError

LEAST = 10
"""Fewest flipped rows that anything is said about."""


def flipped(labels_n: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """The labels [n] with round(share * n) of them changed, each to a random other class.

    Raises:
        UserError: fewer than 10 flipped labels, or as many as half of the rows.
    """
    count = round(share * len(labels_n))
    if count < LEAST or 2 * count > len(labels_n):
        raise UserError(
            f"expected 10 flipped labels or more, of at most half of the rows, got {count} of {len(labels_n)}; change rows or flipped"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels_n), generator=generator)[:count].to(labels_n.device)
    shift = torch.randint(1, classes, (count,), generator=generator).to(labels_n.device)
    changed = labels_n.clone()
    changed[chosen] = (labels_n[chosen] + shift) % classes
    return changed
