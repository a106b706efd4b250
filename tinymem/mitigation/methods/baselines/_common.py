"""Training loop of the baselines: methods that change all weights by gradients instead of localizing.

Every localized edit has to beat them. A step has a batch of forget rows and as many retain rows; an epoch is a pass over the forget rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.losses import Over, row_losses


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(MethodConfig):
    """Options of every baseline.

    Attributes:
        epochs: passes over the forget rows.
        learning_rate, weight_decay: of AdamW, which starts afresh.
        over: forget loss over the `suffix` with the prompt given, or over the whole `row`.
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    batch_size: int = 32
    over: Over = "suffix"


@dataclass(frozen=True, kw_only=True)
class RetainConfig(BaselineConfig):
    """Options of baselines with a retain term: minimize forget_weight * forget term + retain_weight * retain term."""

    forget_weight: float = 1.0
    retain_weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Rows of one step: forget rows with their indices, and retain rows."""

    forget: Rows
    retain: Rows
    index: Tensor
    """Indices [B] of the batch's forget rows among all of them."""


Objective = Callable[[nn.Module, Batch], Tensor]


def descend(
    model: nn.Module, data: MitigationData, config: BaselineConfig, objective: Objective, trained: Callable[[str], bool] = lambda _: True
) -> nn.Module:
    """A copy of the model after minimizing the objective over the parameters whose name `trained` accepts."""
    edited = deepcopy(model)
    chosen = [p for name, p in edited.named_parameters() if trained(name)]
    optimizer = torch.optim.AdamW(chosen, lr=config.learning_rate, weight_decay=config.weight_decay)
    data.bar.expect(config.epochs * -(-len(data.forget) // config.batch_size))
    for batch in _batches(data, config):
        gradients = torch.autograd.grad(objective(edited, batch), chosen, allow_unused=True)
        for parameter, gradient in zip(chosen, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        data.bar.advance(1)
    for parameter in chosen:
        parameter.grad = None
    return edited


def _batches(data: MitigationData, config: BaselineConfig) -> Iterator[Batch]:
    generator, device = data.generator(), data.forget.ids.device
    retained = _forever(len(data.retain), generator)
    for _ in range(config.epochs):
        for index in torch.randperm(len(data.forget), generator=generator).split(config.batch_size):
            retain = torch.tensor([next(retained) for _ in index] if len(data.retain) else [], dtype=torch.long)
            yield Batch(data.forget.take(index.to(device)), data.retain.take(retain.to(device)), index.to(device))


def _forever(count: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def summed(model: nn.Module, rows: Rows, over: Over) -> tuple[Tensor, Tensor]:
    """Minus the log-probability of each row's tokens [B], and their number [B]."""
    count_B = rows.window()[:, 1:].sum(1) if over == "suffix" else rows.lengths() - 1
    return row_losses(model, rows, over) * count_B, count_B


def retain_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean next-token loss of the retain rows, a scalar in nats.

    Raises:
        UserError: there are none.
    """
    if not len(batch.retain):
        raise UserError("expected rows to keep, got none; name some, or use gradient-ascent or task-vector, which need none")
    return row_losses(model, batch.retain).mean()
