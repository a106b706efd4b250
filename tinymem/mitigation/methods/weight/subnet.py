"""Subnet: learn which weights to drop so that the memorized rows are lost.

Idea: instead of ranking weights by a property, train a mask that raises the loss of the memorized rows.
Formula: maximize over the scores the mean loss of the forget rows, where the model runs without the K weights of each matrix that have the
    highest |score|; straight-through gradient (see `_learned_mask`). BalancedSubnet with forget rows only and w = 0.
Source: TinyMem paper, section 3.3, Algorithm 5; the mask after Ramanujan et al. 2020. The published code drops the lowest |scores|
    (`drop: lowest`) and goes through the rows in a fixed order; A.3.7 speaks of one ranking over the model (`scope: model`).
Cost: epochs * forget rows forward and backward passes, and the K of each matrix chosen anew a step. 1, 10 and 20 epochs come from one run.
Options: ratio, of, scope (per matrix), epochs, drop, learning_rate, momentum, weight_decay, batch_size, precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.weight import balanced_subnet
from tinymem.mitigation.methods.weight._batches import Order
from tinymem.mitigation.methods.weight._learned_mask import LearnedMaskConfig, Precision
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig


@dataclass(frozen=True, kw_only=True)
class SubnetConfig(LearnedMaskConfig):
    """Options of Subnet. The grid is that of the paper's A.3.5.

    Attributes:
        precision: fp32 on GPUs too: a run has too few steps for shorter products to pay.
    """

    precision: Precision = "fp32"

    grid: ClassVar[Grid] = grids.SUBNET
    published_grid: ClassVar[Grid] = grids.SUBNET_RUN


def by_epoch(model: nn.Module, data: MitigationData, config: SubnetConfig) -> Iterator[tuple[int, Callable[[], nn.Module]]]:
    """Yield after each epoch of one run the function that makes the edit of a run that ends there."""
    return balanced_subnet.by_epoch(model, *_as_balanced(data, config))


def ranked(model: nn.Module, data: MitigationData, config: SubnetConfig) -> Scores:
    """The trained mask's scores of the feed-forward matrices: the edit drops the highest."""
    return balanced_subnet.ranked(model, *_as_balanced(data, config))


@editor(
    "subnet",
    config=SubnetConfig,
    properties=Properties(unit="weight", order="first", criterion="optimization"),
    by_epoch=by_epoch,
    ranked=ranked,
)
def subnet(
    model: nn.Module,
    data: MitigationData,
    config: SubnetConfig,
    *,
    scores: Mapping[str, Tensor] | None = None,
    order: Order | None = None,
) -> nn.Module:
    """The model without the weights that the trained mask drops; arguments as of `balanced_subnet`, with forget rows only."""
    return balanced_subnet.balanced_subnet(model, *_as_balanced(data, config), scores=scores, order=order)


def _as_balanced(data: MitigationData, config: SubnetConfig) -> tuple[MitigationData, BalancedSubnetConfig]:
    """Data and options that make BalancedSubnet compute Subnet: no retain rows, and no weight on them."""
    forget_only = replace(data, retain=data.forget.take(data.forget.prompt[:0]))
    return forget_only, BalancedSubnetConfig(**asdict(config), loss_weight=0.0, sampler="shuffled", average="class")
