"""Hyper-parameter grids: of the paper's appendix A.3.5, and of the published runs, whose result tables hold other values.

The paper lists ratios 0.1 and 0.0001 for neuron methods and 0.1 for Durable, Durable-agg and SOU, which were not run; the runs of the
subnets go up to 0.8, which the paper does not list. Exceptions for time: no IG with 16 layers, and Greedy below 0.05 only with 16 layers
or text.
"""

from __future__ import annotations

from tinymem.mitigation.config import Grid

EPOCHS = (1, 10, 20)

NEURON: Grid = {"ratio": (0.0001, 0.001, 0.01, 0.05, 0.1)}
NEURON_RUN: Grid = {"ratio": (0.001, 0.01, 0.05)}

GATES: Grid = {"ratio": (0.00001, 0.0001, 0.001, 0.01, 0.05, 0.1), "epochs": EPOCHS}
GATES_RUN: Grid = {**NEURON_RUN, "epochs": EPOCHS}

WEIGHT: Grid = {"ratio": (0.00001, 0.0001, 0.001, 0.01, 0.05, 0.1)}
WEIGHT_RUN: Grid = {"ratio": (0.00001, 0.0001, 0.001, 0.01, 0.05)}
GREEDY = WEIGHT_RUN
WEIGHTS_A_STEP = 2**26
"""Eligible weights for each of which Greedy with `per_step: auto` zeroes one a step."""
BUDGET_RHOS = 24
"""Values of rho that a curvature edit with a budget tries at most."""

SUBNET: Grid = {"ratio": (0.00001, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.3), "epochs": EPOCHS}
SUBNET_RUN: Grid = {"ratio": (*SUBNET["ratio"], 0.5, 0.8), "epochs": EPOCHS}

LOSS_WEIGHTS = (0.9, 0.7, 0.5)
BALANCED: Grid = {**SUBNET, "loss_weight": LOSS_WEIGHTS}
BALANCED_RUN: Grid = {**SUBNET_RUN, "loss_weight": LOSS_WEIGHTS}
