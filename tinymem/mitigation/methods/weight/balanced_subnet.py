"""BalancedSubnet: learn which weights to drop so that memorized rows are lost and all others kept.

Idea: a mask trained on two objectives at once tells the weights that only memorized rows use from those that the task needs.
Formula: minimize over the scores -(1 - w) * mean loss of the forget rows + w * mean loss of the retain rows, where the model runs without
    the K weights of each matrix that have the highest |score|; straight-through gradient (see `_learned_mask`).
Source: TinyMem paper, section 3.3, Algorithm 6. As in the published code the classes are averaged apart; `average: row` is the
    algorithm's plain product of row losses and weights. The published code drops the lowest |scores| (`drop: lowest`) and draws
    batches from the shuffled union (`sampler: shuffled`), most of which then hold no memorized row.
Cost: epochs * (retain + forget rows) forward and backward passes, and the K of each matrix chosen anew a step.
    1, 10 and 20 epochs come from one run.
Options: ratio, of, scope (per matrix), epochs, loss_weight w, sampler, average, drop, learning_rate, momentum, weight_decay, batch_size,
    precision (of the passes that train the mask).
    `sampler: balanced` fills half of each batch with forget rows, or with all where there are fewer; an epoch is then one pass over the
    retain rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import concatenate
from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.replay import Replayed, together
from tinymem.mitigation.methods.weight._batches import Order, Sampler, batches, steps_per_epoch
from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, LearnedMaskConfig, initial_scores
from tinymem.mitigation.methods.weight._mask_kernels import mask_steps

STEPS_AT_ONCE = 8
"""By kernels, whose steps overlap where they are recorded together."""


@dataclass(frozen=True, kw_only=True)
class BalancedSubnetConfig(LearnedMaskConfig):
    """Options of BalancedSubnet. The grid is that of the paper's A.3.5.

    Attributes:
        loss_weight: w in [0, 1], the weight of the retain rows.
        sampler: `shuffled` (Algorithm 6) or `balanced` (half of each batch are forget rows).
        average: over each `class` apart, or over each `row` of the batch.
    """

    epochs: int = 10
    loss_weight: float = 0.9
    sampler: Sampler = "shuffled"
    average: Literal["class", "row"] = "class"

    grid: ClassVar[Grid] = grids.BALANCED
    published_grid: ClassVar[Grid] = grids.BALANCED_RUN

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.loss_weight <= 1:
            raise UserError(f"expected loss_weight in [0, 1], got {self.loss_weight:g}")


def by_epoch(model: nn.Module, data: MitigationData, config: BalancedSubnetConfig) -> Iterator[tuple[int, Callable[[], nn.Module]]]:
    """Yield after each epoch of one run the function that makes the edit of a run that ends there."""
    for epoch, mask in _trained(model, data, config):
        if epoch:
            yield epoch, mask.edited


def ranked(model: nn.Module, data: MitigationData, config: BalancedSubnetConfig) -> Scores:
    """The trained mask's scores of the feed-forward matrices: the edit drops the highest."""
    *_, (_, mask) = _trained(model, data, config)
    return mask.ranked()


@editor(
    "balanced-subnet",
    config=BalancedSubnetConfig,
    properties=Properties(unit="weight", order="first", criterion="optimization", dual_objective=True),
    by_epoch=by_epoch,
    ranked=ranked,
)
def balanced_subnet(
    model: nn.Module,
    data: MitigationData,
    config: BalancedSubnetConfig,
    *,
    scores: Mapping[str, Tensor] | None = None,
    order: Order | None = None,
) -> nn.Module:
    """The model without the weights that the trained mask drops.

    Args:
        model: the model; it is left as it is.
        data: rows to forget and to retain, and the seed.
        config: the method's options.
        scores: where the scores start, by the names and of the shapes of the feed-forward matrices; None: drawn from the seed.
        order: the batches of each epoch, in place of those that `sampler` draws from the seed.

    Raises:
        UserError: scores of other tensors, or an order of another number of epochs.
    """
    *_, (_, mask) = _trained(model, data, config, scores, order)
    return mask.edited()


def _trained(
    model: nn.Module,
    data: MitigationData,
    config: BalancedSubnetConfig,
    scores: Mapping[str, Tensor] | None = None,
    order: Order | None = None,
) -> Iterator[tuple[int, LearnedMask]]:
    """The mask before the first epoch and after each."""
    mask = LearnedMask(model, config, initial_scores(model, data.seed) if scores is None else scores)
    rows = concatenate([data.forget, data.retain])
    forget_N = torch.arange(len(rows), device=rows.ids.device) < len(data.forget)

    def steps(index_KB: Tensor) -> None:
        with mask.passes():
            mask.steps(rows, coefficients(forget_N[index_KB], config), index_KB)

    count, epochs = _epochs(data, config, order)
    first_B = coefficients(forget_N[: config.batch_size], config)
    mask.by_kernels = mask_steps(mask, rows, first_B, count)
    at_once = 1 if mask.by_kernels is None else STEPS_AT_ONCE
    data.bar.expect(count)
    replayed = Replayed(steps, model, steps=count, loaded=mask.by_kernels is not None)
    yield 0, mask
    for epoch, drawn in enumerate(epochs, 1):
        for index_KB in together(drawn, at_once, forget_N.device):
            replayed(index_KB)
            data.bar.advance(len(index_KB))
        yield epoch, mask


def _epochs(data: MitigationData, config: BalancedSubnetConfig, order: Order | None) -> tuple[int, Iterable[Iterable[Tensor]]]:
    """Number of steps, and the batches of each epoch: the given ones, or else drawn."""
    if order is None:
        sizes, generator = (len(data.forget), len(data.retain), config.sampler, config.batch_size), data.generator()
        return config.epochs * steps_per_epoch(*sizes), (batches(*sizes, generator) for _ in range(config.epochs))
    if len(order) != config.epochs:
        raise UserError(f"expected the batches of {config.epochs} epochs, got those of {len(order)}; give one list an epoch")
    return sum(map(len, order)), order


def coefficients(forget_KB: Tensor, config: BalancedSubnetConfig) -> Tensor:
    """The weight [K, B] of each row's loss in its batch's objective (or [B] of one batch); a class that a batch lacks adds nothing."""
    weight_KB, B = torch.where(forget_KB, -(1 - config.loss_weight), config.loss_weight), forget_KB.shape[-1]
    if config.average == "row":
        return weight_KB * (1 / B)
    forget_K1 = forget_KB.sum(-1, keepdim=True)
    return weight_KB / torch.where(forget_KB, forget_K1, B - forget_K1)
