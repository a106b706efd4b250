"""NeMo: zero the neurons whose activation on memorized rows is out of the ordinary, refined to those that matter.

Idea: find neurons that react to memorized rows as they never do to other rows; then give back all that removal does not need.
Formula: a = mean of |h| over the positions that predict the suffix; z = |a - mean| / deviation, both over rows to keep; per row, then the
    mean over the forget rows. Initial set: z > theta, and the k highest z of each layer, with theta = 5, 4.75, ... and k = 0, 1, ... until
    at most `tolerated` of the forget rows are still continued exactly. Refinement: from the last layer to the first, sets of neurons are
    unblocked whenever that share stays so low. Score: z, with what is left of the initial set above all others.
Source: Hintersdorf et al. 2024 for diffusion models (z-scores, initial set, layer by layer, neuron by neuron). Ours for language models:
    the share of rows continued exactly instead of image similarity, halves of sets instead of single neurons, least z first.
Cost: one forward pass over forget rows and up to `sample` retain rows, then up to `tests` forward passes over at most `rows` forget rows;
    the initial set takes its passes, 18 at most, whatever `tests` is.
Options: ratio, of, scope (per layer), skip_bottom, refine, sample, rows, tests, tolerated, batch_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.neuron._common import NeuronConfig, activity, as_scores, cropped, gated, predicting
from tinymem.mitigation.option_ranges import check_least
from tinymem.models.adapters import logits


@dataclass(frozen=True, kw_only=True)
class NemoConfig(NeuronConfig):
    """Options of NeMo. The grid is that of Act, Zero and IG.

    Attributes:
        refine: whether the neurons that removal needs rank above all others; False: z alone.
        sample: retain rows that define ordinary activations.
        rows: most forget rows that tests of removal look at.
        tests: tests of removal, those that find the initial set counted, after which refinement ends; untested neurons stay in the set.
        tolerated: share of rows that may still be continued exactly.
    """

    refine: bool = True
    sample: int = 2000
    rows: int = 64
    tests: int = 200
    tolerated: float = 0.1
    batch_size: int = 256

    grid: ClassVar[Grid] = grids.NEURON

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, sample=1, rows=1, tests=0, tolerated=0)


@torch.no_grad()
def by_row(model: nn.Module, data: MitigationData, config: NemoConfig) -> Tensor:
    """z-scores [S, L, F] of each forget row, without refinement.

    Raises:
        UserError: there are no retain rows.
    """
    order = torch.randperm(len(data.retain), generator=data.generator())[: config.sample].to(data.retain.ids.device)
    if not len(order):
        raise UserError("expected rows to keep, got none: NeMo compares with them")
    total, squares = torch.zeros(1), torch.zeros(1)
    for a_BLF in activity(model, data.retain.take(order), config.batch_size):
        total = total.to(a_BLF.device) + a_BLF.double().sum(0)
        squares = squares.to(a_BLF.device) + a_BLF.double().square().sum(0)
    mean_LF = total / len(order)
    deviation_LF = (squares / len(order) - mean_LF.square()).clamp(min=0).sqrt()
    floor_L1 = 1e-3 * deviation_LF.median(dim=1, keepdim=True).values + 1e-12  # a dead neuron deviates by nothing
    deviation_LF = torch.maximum(deviation_LF, floor_L1)
    return torch.cat([((a - mean_LF).abs() / deviation_LF).float() for a in activity(model, data.forget, config.batch_size)])


@scorer("nemo", config=NemoConfig, properties=Properties(unit="neuron", order="zeroth", iterative=True, dual_objective=True), by_row=by_row)
def nemo(model: nn.Module, data: MitigationData, config: NemoConfig) -> Scores:
    """z-scores [neurons] per layer, the refined neurons ranked first."""
    z_LF = by_row(model, data, config).mean(0)
    if config.refine:
        z_LF = z_LF + refined(model, data, config, z_LF) * (z_LF.max() + 1)
    return as_scores(model, z_LF, config)


@torch.no_grad()
def refined(model: nn.Module, data: MitigationData, config: NemoConfig, z_LF: Tensor) -> Tensor:
    """Mask [L, F] of the neurons that remain blocked after refinement: enough of them to stop the exact continuations."""
    tests = _Tests(model, data, config)
    z_LF = z_LF.clone()
    if config.skip_bottom:
        z_LF[0] = -1
    blocked_LF, enough = _initial(z_LF, tests, config)
    if not enough:  # as in the original: refinement must keep the level that was reached
        tests.tolerated = tests.share(blocked_LF)
    for layer in reversed(range(len(z_LF))):
        members = blocked_LF[layer].nonzero().flatten()
        _unblock(blocked_LF, layer, members[z_LF[layer, members].argsort()], tests)
    return blocked_LF


class _Tests:
    """Tests of whether the forget rows are still continued exactly while some neurons are blocked, with the number of tests left."""

    def __init__(self, model: nn.Module, data: MitigationData, config: NemoConfig) -> None:
        self.model, self.tolerated, self.left = model, config.tolerated, config.tests
        picked = torch.randperm(len(data.forget), generator=data.generator())[: config.rows]
        self.rows = cropped(data.forget.take(picked.to(data.forget.ids.device)))

    def share(self, blocked_LF: Tensor) -> float:
        """Share of the rows that are continued exactly."""
        with gated(self.model, [(~blocked_F).float() for blocked_F in blocked_LF]):
            guess_BT = logits(self.model, self.rows.ids)[:, :-1].argmax(-1)
        right_BT = (guess_BT == self.rows.ids[:, 1:]) | ~predicting(self.rows)[:, :-1]
        return float(right_BT.all(1).float().mean())

    def passes(self, blocked_LF: Tensor) -> bool:
        """True if at most the tolerated share of rows is continued exactly; counts as a test."""
        self.left -= 1
        return self.share(blocked_LF) <= self.tolerated


def _initial(z_LF: Tensor, tests: _Tests, config: NemoConfig) -> tuple[Tensor, bool]:
    """The first set that removes enough, or the last one tried."""
    places_LF = z_LF.argsort(dim=1, descending=True).argsort(dim=1)
    blocked_LF = torch.zeros_like(z_LF, dtype=torch.bool)
    for step in range(17):  # theta 5, 4.75, ..., 1
        blocked_LF = ((z_LF > 5 - 0.25 * step) | (places_LF < step)) & (z_LF >= 0)
        if tests.passes(blocked_LF):
            return blocked_LF, True
    return blocked_LF, False


def _unblock(blocked_LF: Tensor, layer: int, members: Tensor, tests: _Tests) -> None:
    """Unblock as many of `members` as removal allows: all at once, or else half by half."""
    if not len(members) or tests.left <= 0:
        return
    trial_LF = blocked_LF.clone()
    trial_LF[layer, members] = False
    if tests.passes(trial_LF):
        blocked_LF.copy_(trial_LF)
    elif len(members) > 1:
        half = len(members) // 2
        _unblock(blocked_LF, layer, members[:half], tests)
        _unblock(blocked_LF, layer, members[half:], tests)
