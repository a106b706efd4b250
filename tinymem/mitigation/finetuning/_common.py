"""Fine-tuning as the paper does it: training goes on, on chosen rows, with AdamW's state kept (section 3.2)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.frame import Grid, MitigationData
from tinymem.models.adapters import logits


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """Options of the fine-tunings; defaults as in the paper (section 5: five epochs; training's settings otherwise)."""

    epochs: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    batch_size: int = 128

    grid: ClassVar[Grid] = {}

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UserError(f"expected epochs of at least 0, got {self.epochs}")


def finetune(model: nn.Module, rows: Rows, data: MitigationData, config: FinetuningConfig) -> nn.Module:
    """A copy of the model after `epochs` passes over `rows`."""
    edited = deepcopy(model)
    optimizer = torch.optim.AdamW(
        edited.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    if data.optimizer_state:
        from tinymem.training.optimizer import load_optimizer_tensors

        load_optimizer_tensors(optimizer, data.optimizer_state)
    generator = data.generator()
    edited.train()
    data.bar.expect(config.epochs * -(-len(rows) // config.batch_size))
    with torch.random.fork_rng():  # dropout of foreign models draws from the global state
        torch.manual_seed(data.seed)
        for _ in range(config.epochs):
            for index in torch.randperm(len(rows), generator=generator).split(config.batch_size):
                ids_BT = rows.ids[index.to(rows.ids.device)]
                loss = F.cross_entropy(logits(edited, ids_BT)[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                data.bar.advance(1)
    return edited.eval()
