"""Zero, IG, Act and NeMo against loops that follow their definitions word by word."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tinymem.data.rows import Rows, concatenate
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron import act, ig, nemo, zero
from tinymem.mitigation.sequence_level import scores_by_row
from tinymem.models.adapters import captured_neurons, logits, neuron_layers
from tinymem.testing import FAMILIES, QUICK, config_of, tiny_case


def case(family, rows=2):
    """A tiny model with a few rows whose prompts and ends differ."""
    model, data = tiny_case(family)
    ids = data.forget.ids[:rows]
    forget = Rows.of(ids, torch.tensor([5, 3, 1])[:rows], torch.tensor([11, 12, 9])[:rows])
    return model, replace(data, forget=forget)


def patched(model, layer, change):
    """A hook that replaces a layer's activations by `change(activations)`."""
    return layer.module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_zero_equals_a_loop_over_neurons(family):
    model, data = case(family)
    edge = Rows.of(data.forget.ids[:1], 1, 2)  # one token predicts one: neurons that are active there alone count
    data = replace(data, forget=concatenate([data.forget, edge]))
    scores = zero.by_row(model, data, zero.ZeroConfig(copies=7, batch_size=2))
    clean = row_losses(model, data.forget, "suffix")
    for layer in neuron_layers(model):
        for neuron in range(0, layer.neurons, 5):
            mask = torch.ones(layer.neurons)
            mask[neuron] = 0
            handle = patched(model, layer, lambda h, mask=mask: h * mask)
            rise = row_losses(model, data.forget, "suffix") - clean
            handle.remove()
            torch.testing.assert_close(scores[:, layer.index, neuron], rise, atol=2e-6, rtol=1e-4)


@torch.no_grad()
def test_zero_over_whole_rows_and_of_the_set():
    model, data = case("gpt")
    whole = zero.by_row(model, data, zero.ZeroConfig(over="row"))
    layer = neuron_layers(model)[1]
    clean = row_losses(model, data.forget)
    handle = patched(model, layer, lambda h: h * (torch.arange(h.shape[-1]) != 3))
    torch.testing.assert_close(whole[:, 1, 3], row_losses(model, data.forget) - clean, atol=2e-6, rtol=1e-4)
    handle.remove()
    method = UNLEARNERS.get("zero")
    by_row = scores_by_row(method, model, data, zero.ZeroConfig())
    scores = method.function(model, data, zero.ZeroConfig(skip_bottom=True)).values
    assert list(scores) == [layer.weight_name]
    torch.testing.assert_close(scores[layer.weight_name], by_row.mean(0)[1])


@torch.no_grad()
def test_zeros_rises_do_not_add_up_to_that_of_the_layer():
    """Zero is an effect of one neuron at a time, which the loss is not linear in: a layer that is silenced costs another amount."""
    model, data = case("gpt")
    scores = zero.by_row(model, data, zero.ZeroConfig())
    clean = row_losses(model, data.forget, "suffix")
    for layer in neuron_layers(model):
        handle = patched(model, layer, torch.zeros_like)
        rise = row_losses(model, data.forget, "suffix") - clean
        handle.remove()
        assert ((scores[:, layer.index].sum(1) - rise).abs() > 1e-3 * rise.abs()).all()


def test_rows_are_on_the_device_of_their_ids():
    """Zero over whole rows makes rows of ids that may be on a GPU, and a window of them."""
    rows = Rows.of(torch.zeros(2, 3, dtype=torch.long, device="meta"), torch.tensor([1, 2]))
    assert {rows.prompt.device, rows.end.device, rows.window().device, rows.take(rows.end).end.device} == {torch.device("meta")}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_ig_equals_autograd_on_the_full_model(family):
    model, data = case(family, rows=3)
    config = ig.IGConfig(steps=3, rule="ends", batch_size=2, copies=5)
    found = ig.by_row(model, data, config)
    for n in range(len(data.forget)):
        ids, start, end = data.forget.ids[n], int(data.forget.prompt[n]), int(data.forget.end[n])
        expected = torch.zeros(len(neuron_layers(model)), found.shape[2])
        for layer in neuron_layers(model):
            for target in range(start, end):
                expected[layer.index] += reference_ig(model, layer, ids[:target], int(ids[target]), (0.0, 0.5, 1.0))
        torch.testing.assert_close(found[n], expected / (end - start), atol=2e-6, rtol=1e-4)


def reference_ig(model, layer, prefix, target, alphas):
    """One position, one step at a time, on the truncated row."""
    total = 0
    with captured_neurons(model) as activations, torch.no_grad():
        logits(model, prefix[None])
        h = activations[layer.index][0, -1].clone()
    for alpha in alphas:
        patch = (alpha * h).requires_grad_()
        handle = patched(model, layer, lambda x, patch=patch: torch.cat([x[:, :-1], patch[None, None]], dim=1))
        probability = logits(model, prefix[None])[0, -1].softmax(-1)[target]
        handle.remove()
        total = total + torch.autograd.grad(probability, patch)[0]
    return h * total / len(alphas)


@pytest.mark.parametrize("family", FAMILIES)
def test_ig_is_complete(family):
    """Attributions of a layer sum to the fall of the probability when the layer is silent at that position."""
    model, data = case(family, rows=1)
    data = replace(data, forget=Rows.of(data.forget.ids, 6, 7))
    sums = ig.by_row(model, data, ig.IGConfig(steps=200)).sum(-1)[0]
    for layer in neuron_layers(model):
        with torch.no_grad():
            target = data.forget.ids[0, 6]
            full = logits(model, data.forget.ids)[0, 5].softmax(-1)[target]
            handle = patched(model, layer, lambda h: h * (torch.arange(h.shape[1]) != 5)[None, :, None])
            silent = logits(model, data.forget.ids)[0, 5].softmax(-1)[target]
            handle.remove()
        torch.testing.assert_close(sums[layer.index], full - silent, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("rule, points", [("midpoint", (0.25, 0.75)), ("left", (0, 0.5)), ("right", (0.5, 1)), ("ends", (0, 1))])
def test_ig_points(rule, points):
    assert ig.alphas(ig.IGConfig(steps=2, rule=rule), torch.device("cpu")).tolist() == list(points)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_act_of_rows_averages_to_act_of_the_set(family):
    model, data = tiny_case(family)  # all suffixes equally long
    config = act.ActConfig(batch_size=4)
    by_row, of_set = act.by_row(model, data, config), act.act(model, data, config).values
    with captured_neurons(model) as activations:
        logits(model, data.forget.ids)
    for layer in neuron_layers(model):
        expected = activations[layer.index][:, 4:11].abs().mean(1) * layer.values_FD().norm(dim=1)
        torch.testing.assert_close(by_row[:, layer.index], expected)
        torch.testing.assert_close(of_set[layer.weight_name], by_row[:, layer.index].mean(0))


@torch.no_grad()
def test_nemo_z_and_refinement():
    model, data = tiny_case("gpt")
    config = nemo.NemoConfig(refine=False)
    with captured_neurons(model) as activations:
        logits(model, data.retain.ids)
        usual = torch.stack([h[:, 4:11].abs().mean(1) for h in activations], 1)
        logits(model, data.forget.ids)
        seen = torch.stack([h[:, 4:11].abs().mean(1) for h in activations], 1)
    z = (seen - usual.mean(0)).abs() / usual.std(0, correction=0)
    alive = usual.std(0) > 1e-4
    torch.testing.assert_close(nemo.by_row(model, data, config)[:, alive], z[:, alive], rtol=1e-3, atol=1e-4)
    needed = nemo.refined(model, data, config, nemo.by_row(model, data, config).mean(0))
    assert not needed.any(), "a random model continues no row exactly, so removal needs no neuron"


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_runs_in_bf16(family):
    for name in UNLEARNERS.names():
        model, data = tiny_case(family)
        method = UNLEARNERS.get(name)
        edited = apply(method, model.bfloat16(), data, config_of(method, **QUICK))
        assert {p.dtype for p in edited.parameters()} == {torch.bfloat16}, name
        with torch.no_grad():
            assert torch.isfinite(logits(edited, data.forget.ids)).all(), name


@pytest.mark.parametrize(("tokens", "vocabulary", "copies"), [(150, 14, 4096), (60, 50_257, 356), (2**20, 50_257, 1)])
def test_copies_of_zero_on_a_gpu_fit_their_logits(tokens: int, vocabulary: int, copies: int) -> None:
    model = torch.nn.Embedding(vocabulary, 2)
    rows: Any = SimpleNamespace(ids=SimpleNamespace(is_cuda=True, shape=(4, tokens)))
    assert zero.copies_for(model, rows) == copies and copies * tokens * vocabulary <= max(2**30, tokens * vocabulary)
    assert zero.copies_for(model, Rows.of(torch.zeros(4, 8, dtype=torch.int64))) == 32
