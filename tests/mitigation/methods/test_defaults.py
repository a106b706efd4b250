"""Defaults and grids against the papers' words: where they contradict themselves, one reading is the default and the other an option."""

from __future__ import annotations

from typing import Any

import pytest

from tinymem.mitigation.method import UNLEARNERS, Properties

NEURONS = {"scope": "layer", "of": "eligible", "skip_bottom": False}
WEIGHTS = {"of": "eligible", "over": "row"}
MASKS = {
    "scope": "tensor",
    "of": "eligible",
    "drop": "highest",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "batch_size": 64,
}
FINETUNING = {"epochs": 5, "learning_rate": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.98), "batch_size": 128}
DEFAULTS: dict[str, dict[str, Any]] = {
    "zero": {**NEURONS, "over": "suffix"},
    "act": {**NEURONS, "mode": "mean_abs"},
    "ig": {**NEURONS, "rule": "midpoint", "steps": 20},
    "slim": {**NEURONS, "over": "suffix"},
    "hard-concrete": {**NEURONS, "over": "suffix", "start": 0.5},
    "nemo": {**NEURONS, "refine": True},
    "greedy": {"scope": "model", "of": "eligible", "criterion": "product", "per_step": 1, "sampler": "shuffled", "batch_size": 64},
    "durable": {**WEIGHTS, "scope": "layer"},
    "durable-agg": {**WEIGHTS, "scope": "model"},
    "sou": {**WEIGHTS, "scope": "model", "block": 50, "damp": 1e-7, "gradients": 512},
    "subnet": MASKS,
    "balanced-subnet": {**MASKS, "average": "class", "sampler": "shuffled"},
    "finetune-clean": FINETUNING,
    "finetune-extra": FINETUNING,
    "finetune-both": FINETUNING,
    "npo": {"beta": 0.1, "over": "suffix"},
    "simnpo": {"beta": 4.5, "delta": 0.0, "over": "suffix"},
    "rmu": {"layers": 3},
}

SMALL = (0.00001, 0.0001, 0.001, 0.01, 0.05)
SUBNETS = {"ratio": (*SMALL, 0.1, 0.25, 0.3), "epochs": (1, 10, 20)}
NEURON, GATES, WEIGHT = {"ratio": (*SMALL[1:], 0.1)}, {"ratio": (*SMALL, 0.1), "epochs": (1, 10, 20)}, {"ratio": (*SMALL, 0.1)}
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    **dict.fromkeys(("act", "zero", "ig"), NEURON),
    **dict.fromkeys(("slim", "hard-concrete"), GATES),
    **dict.fromkeys(("durable", "durable-agg", "sou"), WEIGHT),
    "greedy": {"ratio": SMALL},
    "subnet": SUBNETS,
    "balanced-subnet": {**SUBNETS, "loss_weight": (0.9, 0.7, 0.5)},
}
NEURON_RUN, GATES_RUN, WEIGHT_RUN = {"ratio": SMALL[2:]}, {"ratio": SMALL[2:], "epochs": (1, 10, 20)}, {"ratio": SMALL}
SUBNETS_RUN = {**SUBNETS, "ratio": (*SUBNETS["ratio"], 0.5, 0.8)}
RUN: dict[str, dict[str, tuple[float, ...]]] = {
    **dict.fromkeys(("act", "zero", "ig"), NEURON_RUN),
    **dict.fromkeys(("slim", "hard-concrete"), GATES_RUN),
    **dict.fromkeys(("durable", "durable-agg", "sou"), WEIGHT_RUN),
    "subnet": SUBNETS_RUN,
    "balanced-subnet": {**SUBNETS_RUN, "loss_weight": (0.9, 0.7, 0.5)},
}

# Table 5 of the paper: order, iterative, layer-wise, criterion, dual objective.
TABLE_5 = {
    "hard-concrete": Properties(unit="neuron", order="first"),
    "slim": Properties(unit="neuron", order="first"),
    "act": Properties(unit="neuron", order="zeroth"),
    "ig": Properties(unit="neuron", order="first"),
    "zero": Properties(unit="neuron", order="zeroth", iterative=True),
    "greedy": Properties(unit="weight", order="first", iterative=True, dual_objective=True),
    "sou": Properties(unit="weight", order="second", layer_wise=True),
    "durable": Properties(unit="weight", order="first", layer_wise=True),
    "durable-agg": Properties(unit="weight", order="first"),
    "subnet": Properties(unit="weight", order="first", criterion="optimization"),
    "balanced-subnet": Properties(unit="weight", order="first", criterion="optimization", dual_objective=True),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    config = UNLEARNERS.get(name).config()
    assert {option: getattr(config, option) for option in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_those_of_the_appendix_and_of_the_published_runs(name: str) -> None:
    config = UNLEARNERS.get(name).config
    assert config.grid == GRIDS[name]
    assert config.published_grid == RUN.get(name, {})


@pytest.mark.parametrize("name", TABLE_5)
def test_properties_are_those_of_table_5(name: str) -> None:
    assert UNLEARNERS.get(name).properties == TABLE_5[name]
