"""A budget of clean performance: the largest edit such that it and all smaller ones cost at most so much.

The published method leaves the choice of rho open. A budget needs no memorized row. Accuracy does not fall steadily with rho, so that
nothing is found by halving: a fixed grid is walked from the smallest edit up, to the first that costs more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from tinymem.data.rows import Rows
from tinymem.evaluation.forward import ForwardPlan, TokenQuery, TokenScores
from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.grids import BUDGET_RHOS
from tinymem.mitigation.method import Performance
from tinymem.runtime.progress import Bar

SMALLEST, LARGEST = 1e-5, 0.5
GRID = tuple(1 - SMALLEST * (LARGEST / SMALLEST) ** (k / (BUDGET_RHOS - 1)) for k in range(BUDGET_RHOS))
"""Values of rho, logarithmic in 1 - rho, from the smallest edit to the largest."""
BATCH = 512


def largest(
    edit: Callable[[float], nn.Module], model: nn.Module, rows: Rows, performance: Performance, budget: float, bar: Bar
) -> tuple[float, float]:
    """The rho of the largest edit within a budget, and its cost.

    Args:
        edit: the edited model at a rho.
        model: before the edit.
        rows: that the cost is measured on.
        performance: what counts as cost.
        budget: points of accuracy, or per cent of perplexity.
        bar: advances by one for each rho.

    Raises:
        Refused: the smallest edit costs more.
    """
    judge = Judge(rows, performance)
    before, found = judge.measure(model), None
    for rho in GRID:
        cost = judge.cost(before, judge.measure(edit(rho)))
        bar.advance(1, f"rho {rho:.5g}: {cost:+.2f}")
        if not cost <= budget:
            break
        found = rho, cost
    if found is None:
        raise Refused(f"expected an edit that costs at most {budget:g}, but that of rho {GRID[0]:g} costs {cost:.3g}; raise the budget")
    return found


class Judge:
    """Measures clean performance on fixed rows: accuracy as a share, or the mean loss in nats."""

    def __init__(self, rows: Rows, performance: Performance) -> None:
        self.metric = performance.metric
        self.plan = ForwardPlan({("test", "judged"): TokenQuery(rows.ids, performance.scored(rows))})

    @torch.no_grad()
    def measure(self, model: nn.Module) -> float:
        """The share of the scored tokens that are right, or their mean loss."""
        scores: TokenScores = self.plan.scores(self.plan.outputs(model, batch_size=BATCH), ("test", "judged"))
        found = scores.right.sum() if self.metric == "accuracy" else scores.loss.double().sum()
        return float(found) / max(1, int(scores.queried.sum()))

    def cost(self, before: float, after: float) -> float:
        """Points of accuracy lost, or per cent of perplexity gained."""
        if self.metric == "accuracy":
            return 100 * (before - after)
        return 100 * math.expm1(min(after - before, 700.0)) if math.isfinite(after) else math.inf
