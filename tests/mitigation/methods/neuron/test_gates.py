"""Slim and Hard Concrete against closed forms, single steps, and runs of one row at a time."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from helpers import equal_weights
from hypothesis import given
from hypothesis import strategies as st

from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron import _gates, hard_concrete, slim
from tinymem.mitigation.sweep_scores import shared_edits
from tinymem.models.adapters import neuron_layers
from tinymem.testing import FAMILIES, config_of, tiny_case


def test_hard_concrete_start_gate_and_penalty():
    for p0, s in ((0.2, -1.0986), (0.5, 0.0), (0.9, 1.6094)):
        start = hard_concrete.start_of(p0)
        assert start == pytest.approx(s, abs=1e-4)
        still = hard_concrete.gate(torch.tensor(start), torch.tensor(0.5), beta=1.0)  # noise of 1/2 is no noise
        assert float(still) == pytest.approx(p0)
    assert float(hard_concrete.chance_open(torch.tensor(1.6094), 0.33)) == pytest.approx(0.917, abs=5e-4)
    assert float(hard_concrete.gate(torch.tensor(0.0), torch.tensor(0.5), 0.33)) == pytest.approx(0.5)


def test_hard_concrete_gates_open_as_often_as_the_penalty_says():
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    for s in (-1.0, 0.0, 1.6):
        opened = (hard_concrete.gate(torch.full_like(u, s), u, 1 / 3) > 0).double().mean()
        assert float(opened) == pytest.approx(float(hard_concrete.chance_open(torch.tensor(s), 1 / 3)), abs=4e-3)


def first_state(model, data, config, rule, by_row=False):
    return next(_gates.learn(model, data, config, rule, by_row=by_row))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_adam_step_of_slim(family):
    """From c = 1 each coefficient moves by the rate against the sign of loss gradient + penalty."""
    model, data = tiny_case(family)
    config = slim.SlimConfig(epochs=1, penalty=0.05, learning_rate=1e-2, batch_size=6)
    state = first_state(model, data, config, slim.RULE)
    layer = neuron_layers(model)[1]
    gate = torch.ones(layer.neurons, requires_grad=True)
    handle = layer.module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * gate, *inputs[1:]))
    (gradient,) = torch.autograd.grad(row_losses(model, data.forget, "suffix").mean(), gate)
    handle.remove()
    torch.testing.assert_close(state.neg_grad_sum_GLF[0, 1], -gradient, atol=1e-6, rtol=1e-4)
    total = gradient + 0.05 / (2 * layer.neurons)
    clear = total.abs() > 1e-5
    torch.testing.assert_close(state.parameters_GLF[0, 1][clear], 1 - 1e-2 * total.sign()[clear], atol=1e-4, rtol=0)


def test_slim_without_penalty_moves_by_at_most_the_rate():
    model, data = tiny_case("gpt")
    config = slim.SlimConfig(epochs=1, penalty=0.0, learning_rate=3e-2, batch_size=6)
    moved = first_state(model, data, config, slim.RULE).parameters_GLF - 1
    assert float(moved.abs().max()) <= 3e-2 * (1 + 1e-4)


def test_one_adam_step_of_hard_concrete():
    """Where the penalty is all there is, every parameter falls by the rate; a met stop value keeps all where they are."""
    model, data = tiny_case("gpt")
    config = hard_concrete.HardConcreteConfig(epochs=1, penalty=1e6, learning_rate=0.1, batch_size=6)
    fallen = first_state(model, data, config, hard_concrete._rule(config)).parameters_GLF
    torch.testing.assert_close(fallen, torch.full_like(fallen, -0.1))
    stopped = replace(config, stop=1.0)
    kept = first_state(model, data, stopped, hard_concrete._rule(stopped)).parameters_GLF
    torch.testing.assert_close(kept, torch.zeros_like(kept))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["slim", "hard-concrete"])
def test_many_rows_at_once_equal_one_at_a_time(family, name):
    model, data = tiny_case(family)
    module = {"slim": slim, "hard-concrete": hard_concrete}[name]
    config = UNLEARNERS.get(name).config(epochs=8, penalty=1.0, learning_rate=5e-2)
    rule = slim.RULE if name == "slim" else hard_concrete._rule(config)
    *_, together = _gates.learn(model, data, config, rule, by_row=True)
    for n in range(3):
        alone = replace(data, forget=data.forget.take(torch.tensor([n])))
        *_, single = _gates.learn(model, alone, config, rule, by_row=True)
        torch.testing.assert_close(together.parameters_GLF[n], single.parameters_GLF[0], atol=2e-3, rtol=0)
    assert module.by_row(model, data, config).shape == (6, 2, 64)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=7), st.integers(0, 60))
def test_rows_go_through_in_the_passes_that_cost_least(tokens, cost):
    groups = _gates._alike(torch.tensor(tokens), cost)
    assert sorted(n for group in groups for n in group.index.tolist()) == list(range(len(tokens)))
    assert all(group.tokens == max(tokens[n] for n in group.index.tolist()) for group in groups)
    ordered = sorted(tokens)
    cuts = [[0, *at, len(tokens)] for n in range(len(tokens)) for at in combinations(range(1, len(tokens)), n)]
    least = min(sum((b - a) * ordered[b - 1] + cost for a, b in pairwise(at)) for at in cuts)
    assert sum(len(group.index) * group.tokens + cost for group in groups) == least


def test_a_layer_left_out_keeps_open_gates():
    model, data = tiny_case("gpt")
    config = hard_concrete.HardConcreteConfig(epochs=2, skip_bottom=True, penalty=0.0)
    *_, state = _gates.learn(model, data, config, hard_concrete._rule(config), by_row=False)
    assert not state.neg_grad_sum_GLF[:, 0].any() and state.neg_grad_sum_GLF[:, 1].any()
    assert state.parameters_GLF[:, 0].abs().max() < 1e-9


def test_ranks_break_ties_by_what_the_loss_asks_for():
    parameters = torch.tensor([[[0.9, 0.9 + 1e-8, 0.2, 1.0]]])
    wish = torch.tensor([[[5.0, 1.0, 9.0, 0.0]]])
    assert _gates.ranks(parameters, wish).tolist() == [[[2.0, 1.0, 0.0, 3.0]]]
    assert _gates.ranks(parameters / 0.0 - parameters / 0.0, wish).isnan().all(), "training that diverged has no ranks"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slim", "hard-concrete", "subnet", "balanced-subnet"])
def test_shorter_runs_are_part_of_longer_ones(name):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get(name)
    config = config_of(method, penalty=1.0, batch_size=4, learning_rate=1.0)
    configs = [replace(config, ratio=ratio, epochs=epochs) for ratio in (0.0, 1e-9, 0.25, 0.5) for epochs in (1, 3)]
    found = {edit.config: edit for edit in shared_edits(model, method, data, configs)}
    assert found.keys() == set(configs)
    for one, edit in found.items():
        assert edit.shared == (one.ratio > 0.1)
        if one.ratio < 0.1:
            assert isinstance(edit.result, Refused) if one.ratio else equal_weights(edit.result, model)
        else:
            assert equal_weights(edit.result, apply(method, model, data, one))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act", "durable-agg", "greedy", "balanced-subnet", "random-neurons"])
def test_one_scoring_pass_serves_all_ratios(name):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get(name)
    ratios = [0.0, 1e-9, 0.002, 0.02] if name == "greedy" else [0.0, 1e-9, 0.1, 0.25]
    found = {edit.config: edit for edit in shared_edits(model, method, data, [method.config(ratio=ratio) for ratio in ratios])}
    control, refused, *edits = sorted(found.values(), key=lambda edit: edit.config.ratio)
    assert equal_weights(control.result, model)
    assert isinstance(refused.result, Refused) and "smallest" in str(refused.result)
    for edit in edits:
        assert edit.shared == (name != "balanced-subnet"), "that one trains at its ratio"
        assert equal_weights(edit.result, apply(method, model, data, edit.config)), edit.config.ratio
