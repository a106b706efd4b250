"""Intervals of what an edit costs ordinary text, paired with the unedited model: the same resampled rows before and after.

Both targets and rows of text are samples, so both are drawn with replacement; rows within each batch of the published perplexity, which
is an average over batches.

Shape suffixes: N targets, R rows of text, B resamples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.localization.recall import RESAMPLES

BATCH = 128
"""Rows that the published perplexity averages the loss of."""


def text_intervals(before_R: Tensor, after_NR: Tensor, batch: int = BATCH, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of the changes of ordinary text, by metric; losses are in nats, none without text."""
    if not len(before_R) or not len(after_NR):
        return {}
    draws = torch.Generator().manual_seed(seed)
    losses_R1 = torch.cat([before_R[None], after_NR]).double().cpu().T  # the first column: unedited
    parts = [part.T @ _weights(len(part), draws) for part in losses_R1.split(batch)]  # of each batch [1 + N, B]
    sizes = torch.tensor([len(part) for part in losses_R1.split(batch)], dtype=torch.float64)
    mean_1NB = (torch.stack(parts) * (sizes / sizes.sum())[:, None, None]).sum(0)
    states = {
        "text_nll": mean_1NB,
        "text_perplexity": mean_1NB.exp(),
        "text_perplexity_base2": torch.stack([2**part for part in parts]).mean(0),
    }
    chosen_NB = _weights(len(after_NR), draws)
    return {name: _ends(((state[1:] - state[:1]) * chosen_NB).sum(0)) for name, state in states.items()}


def _weights(count: int, draws: torch.Generator) -> Tensor:
    """How often each of `count` things is drawn in each resample, as shares [count, B]."""
    index_CB = torch.randint(count, (count, RESAMPLES), generator=draws)
    ones = torch.ones(count, RESAMPLES, dtype=torch.float64)
    return torch.zeros(count, RESAMPLES, dtype=torch.float64).scatter_add_(0, index_CB, ones) / count


def _ends(values_B: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values_B, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
