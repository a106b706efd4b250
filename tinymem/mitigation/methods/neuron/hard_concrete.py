"""Hard Concrete (HC): learn a random gate per neuron under an L0 penalty, and zero the neurons whose gates stay open.

Idea: as Slim, but with gates that are exactly 0 or 1 most of the time, and a penalty on the chance that a gate is open.
Formula: gate = clip(1.2 * sigmoid((log u - log(1 - u) + s) / beta) - 0.1, 0, 1) with u uniform, cut to [1e-4, 1 - 1e-4], one draw per step;
    minimize over s mean suffix loss + penalty * mean sigmoid(s - beta * log(0.1 / 1.1)); Adam. Start: s = logit((p0 + 0.1) / 1.2), where
    the gate without noise and with beta 1 is p0. Score: s, and among equal s as Slim.
Source: Louizos et al. 2018; Chang et al. 2024, section 3; TinyMem paper, section 3.3. The published TinyMem code overwrites the start with
    N(0, 0.01), clears gradients once an epoch only, and uses whole rows, beta 2/3, rate 0.1 and penalty 1000.
Cost: epochs * forget rows forward and backward passes, without gradients of weights. 1, 10 and 20 epochs come from one run.
Options: ratio, of, scope (per layer), skip_bottom, epochs, learning_rate, penalty, stop, over, batch_size, beta, start (p0). Gates of a
    bottom layer that is left out are 1 (Chang et al.'s code goes on drawing them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.neuron._common import as_scores
from tinymem.mitigation.methods.neuron._gates import GatesConfig, Rule, learn, learn_by_row, ranks

LOW, HIGH = -0.1, 1.1


@dataclass(frozen=True, kw_only=True)
class HardConcreteConfig(GatesConfig):
    """Options of Hard Concrete. The grid is that of the paper's A.3.5.

    Attributes:
        beta: temperature of the gates.
        start: p0, the gate at the start without noise and with beta 1 (with 0.5 at any beta).
    """

    beta: float = 1 / 3
    start: float = 0.5

    grid: ClassVar[Grid] = grids.GATES
    published_grid: ClassVar[Grid] = grids.GATES_RUN

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.start < 1 or self.beta <= 0:
            raise UserError(f"expected start in [0, 1) and beta above 0, got {self.start:g} and {self.beta:g}")


def start_of(p0: float) -> float:
    """The parameter whose gate without noise and temperature, sigmoid(s) stretched, is p0."""
    share = (p0 - LOW) / (HIGH - LOW)
    return math.log(share / (1 - share))


def gate(s: Tensor, u: Tensor, beta: float) -> Tensor:
    """The random gates of parameters `s` for uniform noise `u`, all of one shape."""
    u = u.clamp(1e-4, 1 - 1e-4)
    return (torch.sigmoid((u.log() - (1 - u).log() + s) / beta) * (HIGH - LOW) + LOW).clamp(0, 1)


def chance_open(s: Tensor, beta: float) -> Tensor:
    """Probability that a gate is above 0, shaped as the parameters: the penalty."""
    return torch.sigmoid(s - beta * math.log(-LOW / HIGH))


def by_epoch(model: nn.Module, data: MitigationData, config: HardConcreteConfig) -> Iterator[tuple[int, Scores]]:
    """Scores after each epoch of one run."""
    for state in learn(model, data, config, _rule(config), by_row=False):
        yield state.epoch, as_scores(model, ranks(state.parameters_GLF, state.neg_grad_sum_GLF)[0], config)


def by_row(model: nn.Module, data: MitigationData, config: HardConcreteConfig) -> Tensor:
    """Ranks [S, L, F] of a gate per row and neuron, all rows trained at once."""
    state = learn_by_row(model, data, config, _rule(config))
    return ranks(state.parameters_GLF, state.neg_grad_sum_GLF)


@scorer("hard-concrete", config=HardConcreteConfig, properties=Properties(unit="neuron", order="first"), by_epoch=by_epoch, by_row=by_row)
def hard_concrete(model: nn.Module, data: MitigationData, config: HardConcreteConfig) -> Scores:
    """Ranks of the gates' parameters [neurons] per layer after the last epoch."""
    return list(by_epoch(model, data, config))[-1][1]


def _rule(config: HardConcreteConfig) -> Rule:
    return Rule(
        start=start_of(config.start),
        gate=lambda s, u: gate(s, u, config.beta),
        penalty=lambda s: chance_open(s, config.beta),
        noisy=True,
    )
