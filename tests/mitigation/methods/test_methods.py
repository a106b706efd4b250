"""Score, select, ablate and the first methods against slow loops and closed forms."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinymem.cli import main as cli
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.ablation import AblationConfig, Mask, Refused, Scores, ablate, group_counts, select
from tinymem.mitigation.method import UNLEARNERS, parse_config
from tinymem.models.adapters import captured_neurons, layer_of, logits, mlp_parameters, neuron_layers
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.testing import FAMILIES, config_of, tiny_case


def rows_with_windows() -> Rows:
    """Prompts and ends that differ per row."""
    ids = torch.randint(2, 17, (6, 12), generator=torch.Generator().manual_seed(5))
    return Rows(ids, torch.tensor([5, 3, 1, 8, 11, 4]), torch.tensor([12, 7, 3, 12, 12, 5]))


def scores_of(name: str, **options: Any) -> tuple[nn.Module, Scores]:
    model, data = tiny_case("gpt")
    data = data.__class__(**{**vars(data), "forget": rows_with_windows()})
    method = UNLEARNERS.get(name)
    return model, method.function(model, data, config_of(method, **options))


# ---- act and durable ------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def hand_neurons(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """Activations [T, F] of each layer for one row, written out."""
    inner, found = model.transformer, []
    x = inner.wte(ids)[None] + inner.wpe.weight[: len(ids)]
    for block in inner.h:
        x = x + block.attn(block.ln_1(x))
        h = torch.relu(block.mlp.c_fc(block.ln_2(x)))
        found.append(h[0])
        x = x + block.mlp.c_proj(h)
    return found


@pytest.mark.parametrize("mode", ["mean_abs", "abs_mean"])
@pytest.mark.parametrize("batch_size", [1, 4, 512])
def test_act_by_hand(mode: str, batch_size: int) -> None:
    model, scores = scores_of("act", mode=mode, batch_size=batch_size)
    rows, sums, positions = rows_with_windows(), [torch.zeros(64), torch.zeros(64)], 0
    for ids, prompt, end in zip(rows.ids, rows.prompt.tolist(), rows.end.tolist(), strict=True):
        neurons = hand_neurons(model, ids)
        for t in range(prompt - 1, end - 1):  # position t predicts token t + 1
            positions += 1
            for total, h in zip(sums, neurons, strict=True):
                total += h[t].abs() if mode == "mean_abs" else h[t]
    for layer, total in enumerate(sums):
        weight = model.transformer.h[layer].mlp.c_proj.weight  # [embedding, neurons]: column i is the value vector of neuron i
        expected = torch.stack([(total[i] / positions).abs() * weight[:, i].norm() for i in range(64)])
        assert expected.std() > 0
        assert torch.allclose(scores.values[f"transformer.h.{layer}.mlp.c_proj.weight"], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_durable_is_the_gradient_of_the_whole_model(batch_size: int) -> None:
    model, scores = scores_of("durable", batch_size=batch_size)
    for ids in rows_with_windows().ids:
        torch.nn.functional.cross_entropy(model(ids[None])[0, :-1], ids[1:]).backward()
    eligible = {name for name, _ in model.named_parameters() if ".mlp." in name}
    assert set(scores.values) == eligible
    for name, values in scores.values.items():
        assert torch.allclose(values, model.get_parameter(name).grad.abs(), rtol=1e-4, atol=1e-7), name


# ---- select ---------------------------------------------------------------------------------------------------------------------------


def slow_select(model: nn.Module, scores: Scores, config: AblationConfig) -> dict[str, list[bool]]:
    """Rank each group by score, then by place in [in, out], and take the floor of its share of the ratio, in exact arithmetic."""
    entries = [
        (name, i, float(values.flatten()[i]), {"tensor": name, "layer": layer_of(model, name), "model": 0}[config.scope])
        for name, values in scores.values.items()
        for i in torch.arange(values.numel()).view(values.shape).movedim(0, -1).flatten().tolist()  # our class stores [out, in]
    ]
    total = sum(p.numel() for p in model.parameters()) if config.of == "model" else len(entries)
    chosen = {name: [False] * values.numel() for name, values in scores.values.items()}
    for group in dict.fromkeys(entry[3] for entry in entries):
        members = [entry for entry in entries if entry[3] == group]
        count = int(Fraction(str(config.ratio)) * total * len(members) / len(entries))
        for name, i, _, _ in sorted(members, key=lambda e: -e[2])[:count]:  # a stable sort: ties go to the earlier
            chosen[name][i] = True
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["tensor", "layer", "model"])
@pytest.mark.parametrize("of", ["eligible", "model"])
@pytest.mark.parametrize("unit", ["weight", "neuron"])
@pytest.mark.parametrize("levels", [None, 3])
def test_select_by_brute_force(scope: str, of: str, unit: str, levels: int | None) -> None:
    model, _ = tiny_case("gpt")
    shapes = {n: p.shape for n, p in mlp_parameters(model).items()}
    if unit == "neuron":
        shapes = {layer.weight_name: (layer.neurons,) for layer in neuron_layers(model)}
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    if levels:  # many ties
        values = {name: (v * levels).floor() for name, v in values.items()}
    scores = Scores(unit, values)
    ratios = (0.0, 0.02, 0.29, 0.5, 1.0) if of == "eligible" else (0.002, 0.01)
    for ratio in ratios:
        config = AblationConfig(ratio=ratio, of=of, scope=scope)
        mask = select(model, scores, config)
        assert {name: m.flatten().tolist() for name, m in mask.values.items()} == slow_select(model, scores, config), ratio
        assert {name: m.shape for name, m in mask.values.items()} == {name: v.shape for name, v in values.items()}


def test_rounding_errors_do_not_cost_a_neuron() -> None:
    model = GPT(GPTConfig(n_layer=1, n_embd=8, n_head=2, n_inner=100))
    scores = Scores("neuron", {neuron_layers(model)[0].weight_name: torch.arange(100.0)})
    assert int(0.29 * 100) == 28
    mask = select(model, scores, AblationConfig(ratio=0.29))
    assert mask.count() == 29 and next(iter(mask.values.values()))[71:].all()


def test_select_refuses() -> None:
    model, _ = tiny_case("gpt")
    scores = Scores("neuron", {layer.weight_name: torch.rand(64) for layer in neuron_layers(model)})
    with pytest.raises(Refused, match=r"the smallest that acts is 0\.0157"):
        select(model, scores, AblationConfig(ratio=0.015))
    assert select(model, scores, AblationConfig(ratio=1 / 64)).count() == 2
    with pytest.raises(Refused, match=r"the smallest that acts is 0\.00782"):
        select(model, scores, AblationConfig(ratio=0.007, scope="model"))
    with pytest.raises(UserError, match=r"at most 128 .*lower ratio"):
        select(model, scores, AblationConfig(ratio=0.5, of="model"))
    spoilt = {**scores.values, neuron_layers(model)[1].weight_name: torch.full((64,), torch.nan)}
    with pytest.raises(UserError, match=r"NaN in 'transformer\.h\.1"):
        select(model, Scores("neuron", spoilt), AblationConfig())
    with pytest.raises(UserError, match="got none; see the docstring"):
        select(model, Scores("neuron", {}), AblationConfig())
    with pytest.raises(UserError, match="skip_bottom leaves nothing"):
        group_counts(model, {}, AblationConfig())
    for ratio in (-0.1, 1.1, 2):
        with pytest.raises(UserError, match=r"ratio in \[0, 1\]"):
            AblationConfig(ratio=ratio)


@pytest.mark.parametrize("name", UNLEARNERS.names())
def test_no_option_is_hidden_by_one_of_the_command_line(name: str) -> None:
    hidden = {f.name for f in fields(UNLEARNERS.get(name).config)} & set(inspect.signature(cli.mitigate).parameters)
    assert not hidden, f"`tinymem mitigate` keeps {hidden} for itself"


OUT_OF_RANGE = {
    "epochs": -1, "batch_size": 0, "copies": 0, "per_step": 0, "steps": 0, "learning_rate": -1.0, "momentum": -0.1, "penalty": -1.0,
    "weight_decay": -0.1, "betas": (0.9, 1.0), "beta": 0.0, "layers": 0, "sample": 0, "rows": 0, "tests": -1, "tolerated": -0.1,
    "block": 0, "damp": 0.0, "gradients": 0, "loss_weight": 1.5, "start": 1.0, "depth": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", UNLEARNERS.names())
def test_options_out_of_range_are_told_at_once(name: str) -> None:
    """Before, an empty batch or no epoch ended in a traceback."""
    method = UNLEARNERS.get(name)
    wrong = {f.name: OUT_OF_RANGE[f.name] for f in fields(method.config) if f.name in OUT_OF_RANGE}
    if name in ("slim", "hard-concrete"):
        wrong["epochs"] = 0
    for option, value in wrong.items():
        with pytest.raises(UserError, match=option) as error:
            parse_config(method, {option: value})
        assert "\n" not in str(error.value) and "got" in str(error.value)


@pytest.mark.parametrize("neurons", [3, 7, 50, 64, 128, 512, 1000, 3072, 10_240])
@pytest.mark.parametrize("scope", ["layer", "model"])
def test_the_smallest_ratio_that_is_named_acts(neurons: int, scope: str) -> None:
    model, _ = tiny_case("gpt")
    sizes = {layer.weight_name: neurons for layer in neuron_layers(model)}
    with pytest.raises(Refused) as refusal:
        group_counts(model, sizes, AblationConfig(ratio=1e-9, scope=scope))
    named = float(re.search(r"smallest that acts is (\S+)$", str(refusal.value))[1])
    assert all(count == 1 for _, count in group_counts(model, sizes, AblationConfig(ratio=named, scope=scope)))
    with pytest.raises(Refused):
        group_counts(model, sizes, AblationConfig(ratio=named * 0.98, scope=scope))


# ---- ablate ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_zeroed_value_vectors_equal_zeroed_activations(family: str) -> None:
    model, data = tiny_case(family)
    generator = torch.Generator().manual_seed(4)
    mask = Mask("neuron", {layer.weight_name: torch.rand(layer.neurons, generator=generator) < 0.3 for layer in neuron_layers(model)})
    edited = logits(ablate(model, mask), data.forget.ids)
    handles = [
        layer.module.register_forward_pre_hook(lambda _, inputs, off=mask.values[layer.weight_name]: (inputs[0] * ~off,))
        for layer in neuron_layers(model)
    ]
    hooked = logits(model, data.forget.ids)
    for handle in handles:
        handle.remove()
    assert torch.allclose(edited, hooked, atol=1e-6)
    assert not torch.allclose(edited, logits(model, data.forget.ids), atol=1e-4)


def test_weight_ablation_changes_nothing_else() -> None:
    model, _ = tiny_case("gpt")
    name = "transformer.h.1.mlp.c_fc.weight"
    chosen = torch.rand(model.get_parameter(name).shape) < 0.5
    edited = ablate(model, Mask("weight", {name: chosen}))
    for key, parameter in model.named_parameters():
        expected = parameter.masked_fill(chosen, 0) if key == name else parameter
        assert torch.equal(edited.get_parameter(key), expected), key


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_captured_neurons_are_the_inputs_of_the_out_projection(family: str) -> None:
    model, data = tiny_case(family)
    with captured_neurons(model) as activations:
        logits(model, data.forget.ids)
    assert [tuple(a.shape) for a in activations] == [(6, 12, 64)] * 2
    if family == "gpt":
        for row in range(6):
            for ours, slow in zip(activations, hand_neurons(model, data.forget.ids[row]), strict=True):
                assert torch.allclose(ours[row], slow, atol=1e-6)
