"""Slim: learn a coefficient per neuron under an L1 penalty, and zero the neurons whose coefficients hold out.

Idea: shrink all neurons while the memorized suffixes must stay likely; the neurons that memory needs keep large coefficients.
Formula: minimize over c (start 1) mean suffix loss with activations times clip(c, 0, 1), plus penalty * mean |c|; Adam.
    Score: c, and among equal c the neuron with the larger accumulated negative loss gradient.
Source: Liu et al. 2017; Chang et al. 2024, section 3; TinyMem paper, section 3.3. The published TinyMem code (rate 0.1, penalty 1000, whole
    rows) clears gradients once an epoch only; there all coefficients fall together, and its top-K chooses among ties.
Cost: epochs * forget rows forward and backward passes, without gradients of weights. 1, 10 and 20 epochs come from one run.
Options: ratio, of, scope (per layer), skip_bottom, epochs, learning_rate, penalty, stop, over, batch_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.neuron._common import as_scores
from tinymem.mitigation.methods.neuron._gates import GatesConfig, Rule, learn, learn_by_row, ranks


@dataclass(frozen=True, kw_only=True)
class SlimConfig(GatesConfig):
    """Options of Slim. The grid is that of the paper's A.3.5."""

    learning_rate: float = 0.1
    penalty: float = 30.0

    grid: ClassVar[Grid] = grids.GATES
    published_grid: ClassVar[Grid] = grids.GATES_RUN


RULE = Rule(start=1.0, gate=lambda c, _: c.clamp(0, 1), penalty=torch.abs)


def by_epoch(model: nn.Module, data: MitigationData, config: SlimConfig) -> Iterator[tuple[int, Scores]]:
    """Scores after each epoch of one run."""
    for state in learn(model, data, config, RULE, by_row=False):
        yield state.epoch, as_scores(model, ranks(state.parameters_GLF, state.neg_grad_sum_GLF)[0], config)


def by_row(model: nn.Module, data: MitigationData, config: SlimConfig) -> Tensor:
    """Ranks [S, L, F] of a coefficient per row and neuron, all rows trained at once."""
    state = learn_by_row(model, data, config, RULE)
    return ranks(state.parameters_GLF, state.neg_grad_sum_GLF)


@scorer("slim", config=SlimConfig, properties=Properties(unit="neuron", order="first"), by_epoch=by_epoch, by_row=by_row)
def slim(model: nn.Module, data: MitigationData, config: SlimConfig) -> Scores:
    """Ranks of the coefficients [neurons] per layer after the last epoch."""
    return list(by_epoch(model, data, config))[-1][1]
