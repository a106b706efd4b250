"""Edits counted by block, against loops over single parameters."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import random_gpt
from torch import nn

from tinymem.mitigation.ablation import Mask, ablate
from tinymem.mitigation.edit_size import edit_size
from tinymem.mitigation.run import Subject, mitigate


def brute_force(before: nn.Module, after: nn.Module, layers: int) -> dict[str, list[int]]:
    """Zeroed feed-forward parameters and changed parameters of each block, one parameter at a time."""
    weights, changed = [0] * layers, [0] * layers
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        for a, b in zip(old.flatten().tolist(), new.flatten().tolist(), strict=True):
            for layer in range(layers):
                inside = name.startswith(f"transformer.h.{layer}.")
                changed[layer] += inside and a != b
                weights[layer] += inside and ".mlp." in name and a != b and b == 0
    return {"weights": weights, "changed": changed}


def test_counts_are_those_of_a_loop_over_parameters() -> None:
    before = random_gpt(n_layer=3)
    after = deepcopy(before)
    with torch.no_grad():
        after.transformer.h[0].mlp.c_fc.weight[1, :5] = 0
        after.transformer.h[0].mlp.c_fc.weight[2, 3] += 1
        after.transformer.h[1].attn.c_attn.weight[0, 0] = 0
        after.transformer.h[2].mlp.c_proj.weight[:, 4] = 0
        after.transformer.h[2].mlp.c_proj.weight[1:, 5] = 0
        after.transformer.wte.weight[3, 2] += 2
    size = edit_size(before, after)
    assert size.by_layer is not None
    assert {key: size.by_layer[key] for key in ("weights", "changed")} == brute_force(before, after, 3)
    assert size.by_layer["neurons"] == [0, 0, 1]
    assert size.by_layer["of_neurons"] == [64] * 3
    assert size.by_layer["of_weights"] == [2 * 16 * 64 + 64 + 16] * 3
    assert size.by_layer["elsewhere"] == 1
    assert size.changed == sum(size.by_layer["changed"]) + 1
    flat = [torch.cat([p.detach().flatten() for p in model.parameters()]).double() for model in (before, after)]
    assert size.norm == pytest.approx(float((flat[1] - flat[0]).norm()))


def test_neurons_that_were_silent_before_are_not_counted() -> None:
    before = random_gpt()
    chosen = {f"transformer.h.{i}.mlp.c_proj.weight": torch.arange(64) < 3 + i for i in range(2)}
    after = ablate(before, Mask("neuron", chosen))
    assert edit_size(before, after).by_layer["neurons"] == [3, 4]  # type: ignore[index]
    assert edit_size(after, after).by_layer["neurons"] == [0, 0]  # type: ignore[index]


def test_transposed_weights_count_alike() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=8, vocab_size=10)
    before = transformers.GPT2LMHeadModel(config)
    after = ablate(before, Mask("neuron", {"transformer.h.1.mlp.c_proj.weight": torch.arange(32) < 5}))
    by_layer = edit_size(before, after).by_layer
    assert by_layer is not None
    assert (by_layer["neurons"], by_layer["weights"]) == ([0, 5], [0, 5 * 8])


def test_an_unknown_family_has_no_blocks() -> None:
    before = nn.Linear(2, 2)
    assert edit_size(before, before).by_layer is None


def test_rows_hold_the_unit_and_the_counts(paper: Subject) -> None:
    neuron = mitigate(paper, "act", {"ratio": 0.05}).rows[0]
    assert neuron["unit"] == "neuron"
    assert neuron["edited_by_layer"]["neurons"] == [9, 9]  # 5 % of 192 neurons a layer, rounded down
    weight = mitigate(paper, "durable", {"ratio": 0.01}).rows[0]
    assert weight["unit"] == "weight"
    assert sum(weight["edited_by_layer"]["changed"]) == weight["edited_parameters"]
    refused = mitigate(paper, "act", {"ratio": 1e-6}).rows[0]
    assert (refused["status"], refused["unit"], refused["edited_by_layer"]) == ("refused", "neuron", None)
