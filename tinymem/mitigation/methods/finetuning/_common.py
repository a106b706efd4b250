"""Fine-tuning as in the paper: training continues on chosen rows, with AdamW's state from training where it is stored (section 3.2)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import next_tokens, to_ids
from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import MitigationData
from tinymem.models.adapters import logits


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig(MethodConfig):
    """Options of the fine-tunings; defaults as in the paper (section 5: five epochs; training's settings otherwise)."""

    epochs: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    batch_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"expected betas in [0, 1), got {self.betas[0]:g} and {self.betas[1]:g}")


def all_clean(data: MitigationData) -> Tensor:
    """All training rows but the artifact rows [N, T], compact or not; of a long text these exceed the retain rows, which are a sample."""
    return data.retain.ids if data.clean is None else data.clean


def finetune(
    model: nn.Module, rows_NT: Tensor, data: MitigationData, config: FinetuningConfig, length_N: Tensor | None = None
) -> nn.Module:
    """A copy of the model after `epochs` passes over rows, compact (`compact_rows`) or not, on any device, or over their first tokens.

    Raises:
        UserError: there are none.
    """
    if not len(rows_NT):
        raise UserError("expected rows to train on, got none; name some with --retain, or use a corpus")
    edited, device = deepcopy(model), data.forget.ids.device
    optimizer = torch.optim.AdamW(
        edited.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    if data.optimizer_state:
        from tinymem.training.optimizer import load_optimizer_tensors

        load_optimizer_tensors(optimizer, data.optimizer_state)
    generator = data.generator()
    edited.train()
    data.bar.expect(config.epochs * -(-len(rows_NT) // config.batch_size))
    with torch.random.fork_rng():  # dropout of foreign models draws from the global state
        torch.manual_seed(data.seed)
        for _ in range(config.epochs):
            for index in torch.randperm(len(rows_NT), generator=generator).split(config.batch_size):
                ids_BT = to_ids(rows_NT[index.to(rows_NT.device)].to(device))
                targets_BT = next_tokens(ids_BT, None if length_N is None else length_N[index.to(device)])
                loss = F.cross_entropy(logits(edited, ids_BT)[:, :-1].flatten(0, 1), targets_BT.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                data.bar.advance(1)
    return edited.eval()
