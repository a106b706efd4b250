"""Training loop of the baselines: methods that change all weights by gradients instead of localizing.

Every localized edit has to beat them. A step has a batch of forget rows and as many retain rows; an epoch is a pass over the forget rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.losses import Over, row_losses
from tinymem.mitigation.methods.pieces import Pieces, beside_training, summed_gradients
from tinymem.models.copied import copied
from tinymem.training.rounded_adamw import optimizer_of, refuse_fp16


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
    """Rows of one step, or a piece of them: forget rows with their indices, and retain rows."""

    forget: Rows
    retain: Rows
    index: Tensor
    """Indices [B] of the batch's forget rows among all of them."""
    step: Batch | None = None
    """The whole batch of which this is a piece."""

    @property
    def whole(self) -> Batch:
        """The batch that means are taken over."""
        return self.step or self

    def piece(self, at_b: Tensor) -> Batch:
        """The rows at some places of the batch, whose forget rows come first; either kind may be none."""
        forget = at_b[at_b < len(self.forget)]
        return Batch(self.forget.take(forget), self.retain.take(at_b[len(forget) :] - len(self.forget)), self.index[forget], self)


Objective = Callable[[nn.Module, Batch], Tensor]
"""(edited model, piece of a batch) -> scalar; summed over the pieces it is what a step lowers: means are over `Batch.whole`."""


def descend(
    model: nn.Module, data: MitigationData, config: BaselineConfig, objective: Objective, trained: Callable[[str], bool] = lambda _: True
) -> nn.Module:
    """A copy of the model after minimizing the objective over the parameters whose name `trained` accepts.

    Raises:
        UserError: a model in fp16, whose steps are mostly too small for it.
    """
    refuse_fp16(model)
    edited = copied(model)
    chosen = {name: p for name, p in edited.named_parameters() if trained(name)}
    optimizer = optimizer_of([*chosen.values()], config.learning_rate, config.weight_decay, data.seed)
    pieces = beside_training(model, data.forget.ids.shape[1])
    data.bar.expect(config.epochs * -(-len(data.forget) // config.batch_size))
    for batch in _batches(data, config):
        places = torch.arange(len(batch.forget) + (len(batch.retain) if isinstance(config, RetainConfig) else 0), device=batch.index.device)
        gradients = _gradients(edited, batch, places, objective, chosen, pieces)
        for name, parameter in chosen.items():
            parameter.grad = gradients.pop(name, None)
        optimizer.step()
        for parameter in chosen.values():
            parameter.grad = None
        data.bar.advance(1)
    return edited


def _gradients(
    edited: nn.Module, batch: Batch, places: Tensor, objective: Objective, chosen: dict[str, nn.Parameter], pieces: Pieces
) -> dict[str, Tensor]:
    """The objective's gradients over a batch, by name; parameters that it does not reach have none."""

    def share(at: Tensor) -> Tensor:
        return objective(edited, batch.piece(at) if len(at) < len(places) else batch)

    return summed_gradients(pieces, _parts(batch, places, pieces), share, chosen)


def _parts(batch: Batch, places: Tensor, pieces: Pieces) -> list[Tensor]:
    """The places of a batch, of a large model those of forget and of retain rows apart.

    A piece of both is two passes, and the gradients of all weights of the one would wait for those of the other.
    """
    if pieces.rows is None:
        return [places]
    return [part for part in places.tensor_split([len(batch.forget)]) if len(part)]


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
    """A piece's share in the mean next-token loss of a batch's retain rows, a scalar in nats.

    Raises:
        UserError: there are none.
    """
    if not len(batch.whole.retain):
        raise UserError("expected rows to keep, got none; name some, or use gradient-ascent or task-vector, which need none")
    return row_losses(model, batch.retain).sum() / len(batch.whole.retain)
