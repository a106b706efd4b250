"""Relearning: a few steps of training on a copy of an edited model, to test whether the removed content returns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows, next_tokens
from tinymem.models.adapters import logits
from tinymem.models.copied import copied
from tinymem.recipe.evaluation import Robustness
from tinymem.training.rounded_adamw import optimizer_of, refuse_fp16


def relearned(model: nn.Module, rows: Rows, settings: Robustness, seed: int) -> nn.Module:
    """The copy after `settings.steps` steps of AdamW, with training's betas and weight decay and a fresh state, on the rows.

    Weights of bf16 are rounded at random.

    Raises:
        UserError: a model in fp16.
    """
    refuse_fp16(model, "the tests of robustness, which train a copy of it")
    copy = copied(model)
    optimizer = optimizer_of([*copy.parameters()], settings.learning_rate, 0.1, seed, (0.9, 0.98))
    copy.train()
    with torch.random.fork_rng():  # dropout of foreign models draws from the global state
        torch.manual_seed(seed)
        for index in _batches(len(rows), settings, torch.Generator().manual_seed(seed)):
            batch = rows.take(index.to(rows.ids.device))
            targets_BT = next_tokens(batch.ids, batch.length)
            loss = F.cross_entropy(logits(copy, batch.ids)[:, :-1].flatten(0, 1), targets_BT.flatten())
            copy.zero_grad()
            loss.backward()
            optimizer.step()
    return copy.eval()


def _batches(rows: int, settings: Robustness, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `steps` batches, from one permutation of the rows after the other."""
    waiting = torch.zeros(0, dtype=torch.int64)
    for _ in range(settings.steps):
        while len(waiting) < min(settings.batch_size, rows):
            waiting = torch.cat([waiting, torch.randperm(rows, generator=generator)])
        yield waiting[: settings.batch_size]
        waiting = waiting[settings.batch_size :]
