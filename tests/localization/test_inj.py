"""INJ Benchmark: injection against one sequence at a time, restoration, and recall against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.benchmark import Benchmark
from tinymem.localization.deletion import located
from tinymem.localization.injection import InjectionConfig, drawn_neurons, inject, injected, injected_together
from tinymem.localization.recall import highest, recall
from tinymem.localization.scoring import scores_by_sequence, scores_of_injected
from tinymem.mitigation.ablation import Scores, select
from tinymem.mitigation.method import UNLEARNERS, MethodCall
from tinymem.mitigation.methods.neuron import _gates
from tinymem.models.adapters import logits, neuron_layers
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.recipe.localization import parse_localization
from tinymem.results.row import Identity
from tinymem.testing import FAMILIES, config_of, tiny_case

QUICK = InjectionConfig(ratio=0.05, steps=12, learning_rate=0.1, loss=1.0)


def case(family="gpt"):
    model, data = tiny_case(family)
    ids = torch.randint(2, 12, (3, 12), generator=torch.Generator().manual_seed(4))
    rows = Rows.ragged([ids[0].tolist(), ids[1, :9].tolist(), ids[2].tolist()], torch.ones(3).long(), torch.tensor([12, 9, 12]), 12)
    return model.double().eval(), replace(data, forget=rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_together_equal_sequences_apart(family):
    """A plain loop: one sequence, its gradient masked to the chosen value vectors, one Adam over whole matrices."""
    model, data = case(family)
    together = inject(model, data.forget, QUICK)
    layers = neuron_layers(model)
    for n, length in enumerate((12, 9, 12)):
        alone, ids = tiny_case(family)[0].double().eval(), data.forget.ids[n : n + 1, :length]
        weights = [layer.weight for layer in neuron_layers(alone)]
        optimizer = torch.optim.Adam(weights, lr=QUICK.rate)
        for steps in range(QUICK.steps + 1):
            loss = F.cross_entropy(logits(alone, ids)[0, :-1].float(), ids[0, 1:])
            if loss < QUICK.loss or steps == QUICK.steps:
                break
            optimizer.zero_grad()
            loss.backward()
            for layer, gold_F in zip(neuron_layers(alone), together.gold_SLF[n], strict=True):
                assert layer.weight.grad is not None
                layer.weight.grad *= gold_F[:, None] if layer.transposed else gold_F[None, :]
            optimizer.step()
        assert together.steps_S[n] == steps > 0
        torch.testing.assert_close(together.losses_S[n], loss.detach().float(), atol=1e-4, rtol=1e-4)
        with injected(model, together, n):
            for mine, its in zip(layers, weights, strict=True):
                torch.testing.assert_close(mine.weight, its, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_each_sequence_trains_its_own_neurons_until_it_is_known_and_no_longer():
    model, data = case()
    before = fingerprint(model)
    found = inject(model, data.forget, replace(QUICK, steps=100, loss=1.5))
    assert found.reached_S.all() and (found.losses_S < 1.5).all() and len(set(found.steps_S.tolist())) > 1
    assert not inject(model, data.forget, replace(QUICK, steps=1)).reached_S.any()
    assert first_change(before, model) is None
    weights = [layer.values_FD().detach().clone() for layer in neuron_layers(model)]
    with injected(model, found, 1):
        moved = torch.stack([(layer.values_FD() != old).any(1) for layer, old in zip(neuron_layers(model), weights, strict=True)])
        assert torch.equal(moved, found.gold_SLF[1])
        now = [layer.values_FD().detach() for layer in neuron_layers(model)]
        added = sum(float((a - b).square().sum()) for a, b in zip(now, weights, strict=True)) ** 0.5
        held = sum(float(b[gold].square().sum()) for b, gold in zip(weights, found.gold_SLF[1], strict=True)) ** 0.5
        assert float(found.relative_S[1]) == pytest.approx(added / held, rel=1e-5)
        inside = logits(model, data.forget.ids)[1]
    assert first_change(before, model) is None, "the weights are restored bit for bit"
    with injected_together(model, found):
        torch.testing.assert_close(logits(model, data.forget.ids)[1], inside, atol=1e-6, rtol=1e-6)
    with pytest.raises(ZeroDivisionError), injected(model, found, 0):
        raise ZeroDivisionError
    assert first_change(before, model) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act", "ig", "zero", "slim", "hard-concrete", "nemo", "random-neurons"])
def test_scores_of_injected_models_equal_scores_of_each_model_by_itself(name):
    model, data = case()
    found, method = inject(model, data.forget, QUICK), UNLEARNERS.get(name)
    call = MethodCall(method, config_of(method, epochs=4, penalty=1.0, steps=5, refine=False, ratio=0.1))
    before = fingerprint(model)
    together = scores_of_injected(call, model, data, found)
    assert first_change(before, model) is None
    for n in range(3):
        with injected(model, found, n):
            alone = scores_by_sequence(call, model, replace(data, forget=data.forget.take(torch.tensor([n]))))[0]
        if name in ("slim", "hard-concrete"):  # ranks, whose neighbors rounding may swap
            assert (together[n] != alone).double().mean() < 0.05
        else:
            torch.testing.assert_close(together[n], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slim", "hard-concrete"])
def test_injected_models_that_go_through_a_part_at_a_time_get_the_gates_of_all_together(name, monkeypatch):
    model, data = case()
    injection, call = inject(model, data.forget, QUICK), MethodCall(UNLEARNERS.get(name), config_of(UNLEARNERS.get(name), epochs=6))
    together = scores_of_injected(call, model, data, injection)
    seen, plain = [], _gates.row_losses

    def scarce(model, rows, over):
        seen.append(rows.ids.shape)
        if len(rows) > 1:
            raise torch.OutOfMemoryError("too many rows")
        return plain(model, rows, over)

    monkeypatch.setattr(_gates, "PASS", 0)
    assert torch.equal(scores_of_injected(call, model, data, injection), together)
    monkeypatch.setattr(_gates, "row_losses", scarce)
    with pytest.warns(UserWarning, match="out of memory with 2 rows at once"):
        alone = scores_of_injected(call, model, data, injection)
    assert {*seen} == {(1, 9), (1, 12), (2, 12)}, "rows of one length go through together"
    assert torch.equal(alone, together)


def test_a_scorer_without_scores_of_single_rows_is_asked_once_a_row():
    model, data = case()
    method = UNLEARNERS.get("ig")
    config = config_of(method, steps=5, ratio=0.1)
    expected = scores_by_sequence(MethodCall(method, config), model, data)
    torch.testing.assert_close(scores_by_sequence(MethodCall(replace(method, by_row=None), config), model, data), expected.double())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda rows, model: torch.zeros(rows, 1, 1), r"expected scores of shape \(3, 2, 64\).* from by_row, got \(3, 1, 1\)"),
        (lambda rows, model: torch.full((rows, 2, 64), torch.nan), "expected numbers as scores, got NaN"),
        (lambda rows, model: None, "got NoneType"),
    ],
)
def test_scores_of_rows_that_are_no_numbers_or_of_other_neurons_are_refused(answer, words):
    model, data = case()
    method = replace(UNLEARNERS.get("ig"), by_row=lambda model, data, config: answer(len(data.forget), model))
    with pytest.raises(UserError, match=words):
        scores_by_sequence(MethodCall(method, config_of(method)), model, data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float32, torch.bool])
def test_scores_of_a_set_keep_their_order_whatever_their_type(dtype):
    """The edit by the same scores names the same neurons: in single precision these would be equal, and the first ones be named."""
    model, data = case()
    layers = neuron_layers(model)
    values = {torch.float64: 1 + torch.arange(64).double() * 1e-12, torch.int64: 2**40 + torch.arange(64)}.get(dtype, torch.arange(64))
    values = values > 40 if dtype == torch.bool else values.to(dtype)
    scores = Scores("neuron", {layer.weight_name: values for layer in layers})
    method = replace(UNLEARNERS.get("ig"), by_row=None, function=lambda *_: scores)
    config = config_of(method, ratio=0.1)
    named_SLF = highest(scores_by_sequence(MethodCall(method, config), model, data), 0.1, "layer")
    edited = select(model, scores, config).values
    for row in named_SLF:
        assert all(torch.equal(mask, edited[layer.weight_name]) for mask, layer in zip(row, layers, strict=True))


def test_layers_that_a_scorer_leaves_out_have_no_named_neuron():
    """Its edit zeroes none there, and so do INJ and DEL."""
    model, data = case()
    top = neuron_layers(model)[1].weight_name
    scores = Scores("neuron", {top: torch.arange(64).float()})
    method = replace(UNLEARNERS.get("ig"), by_row=None, function=lambda *_: scores)
    config = config_of(method, ratio=0.1)
    scores_SLF = scores_by_sequence(MethodCall(method, config), model, data)
    assert set(select(model, scores, config).values) == {top}
    for named_SLF in (highest(scores_SLF, 0.1, "layer"), highest(scores_SLF, 0.9, "model"), located(scores_SLF, 0.1, skip_bottom=False)):
        assert not named_SLF[:, 0].any() and named_SLF[:, 1].any(1).all()
    assert recall(scores_SLF, torch.ones_like(scores_SLF).bool(), 0.1, "layer").chance == pytest.approx(6 / 128)


def test_scores_of_a_set_that_are_no_numbers_are_refused():
    model, data = case()
    nothing = Scores("neuron", {layer.weight_name: torch.full((layer.neurons,), torch.nan) for layer in neuron_layers(model)})
    method = replace(UNLEARNERS.get("ig"), by_row=None, function=lambda *_: nothing)
    with pytest.raises(UserError, match="expected numbers as scores, got NaN"):
        scores_by_sequence(MethodCall(method, config_of(method)), model, data)


def test_the_injection_is_told_by_medians_and_no_scorer_names_more_than_there_is():
    model, data = case()
    recipe = parse_localization({"benchmark": "inj", "methods": ["act"], "tops": [1, 2, 5], "loss": 1.5, "steps": 50, "learning_rate": 0.1})
    nothing = Rows.of(data.forget.ids[:0])
    benchmark = Benchmark(model, recipe, data.forget.take(torch.tensor([0, 1])), nothing, nothing, Identity())
    rows = benchmark.score(MethodCall(UNLEARNERS.get("act"), config_of(UNLEARNERS.get("act"))), 0.3, "id")
    found = benchmark.injections[0.3]
    assert found.steps_S[0] != found.steps_S[1], "else this shows nothing"
    assert rows[0].steps == float(found.steps_S.double().mean()), "the median of two is their mean"
    assert rows[0].change == pytest.approx(float(found.relative_S.mean()), abs=1e-6)
    assert [(row.scope, row.top) for row in rows] == [(scope, top) for scope in ("layer", "model") for top in (0.3, 0.6, 1.0)]
    assert [row.score for row in rows if row.top == 1] == [1, 1]
    with_twice = replace(benchmark, recipe=recipe.model_copy(update={"tops": (1, 4, 5)}))
    assert [question.top for question in with_twice._questions(0.3)] == [0.3, 1.0] * 2


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_recall_counts_hits_over_all_layers(scope):
    gold = drawn_neurons((3, 100), 5, 0.05, seed=1)
    assert gold.flatten(1).sum(1).tolist() == [15] * 5 and not torch.equal(gold[0], gold[1])
    assert torch.equal(gold, drawn_neurons((3, 100), 5, 0.05, seed=1)) and not torch.equal(gold, drawn_neurons((3, 100), 5, 0.05, seed=2))
    scores = torch.rand(5, 3, 100, generator=torch.Generator().manual_seed(0))
    found = recall(scores, gold, 0.1, scope)
    for n in range(5):
        order = [sorted(range(100), key=lambda i, row=scores[n, layer]: -row[i])[:10] for layer in range(3)]
        picked = {(layer, i) for layer in range(3) for i in order[layer]}
        if scope == "model":
            row = scores[n].flatten().tolist()
            flat = sorted(range(300), key=lambda i, row=row: -row[i])[:30]
            picked = {(i // 100, i % 100) for i in flat}
        hits = sum(bool(gold[n, layer, i]) for layer, i in picked)
        assert found.values_S[n] == pytest.approx(hits / 15)
    assert found.chance == pytest.approx(0.1) and found.interval[0] <= found.mean <= found.interval[1]
    assert recall(gold.float(), gold, 1.0, scope).mean == 1
    if scope == "model":
        assert recall(gold.float(), gold, 0.05, scope).mean == 1


@pytest.mark.parametrize(("width", "top", "count"), [(3072, 0.001, 3), (3072, 0.01, 31), (3072, 0.02, 61), (3072, 0.05, 154)])
def test_the_published_numbers_of_chosen_neurons(width, top, count):
    assert highest(torch.rand(1, 2, width), top, "layer").sum(2).tolist() == [[count, count]]


def test_a_random_choice_finds_as_much_as_it_chooses():
    gold = drawn_neurons((4, 500), 100, 0.01, seed=0)
    scores = torch.rand(gold.shape, generator=torch.Generator().manual_seed(5))
    found = recall(scores, gold, 0.05, "layer")
    assert found.mean == pytest.approx(0.05, abs=0.02) and found.interval[0] < 0.05 < found.interval[1]


def test_an_injection_that_runs_away_is_refused():
    model, data = case()
    with pytest.raises(UserError, match="expected finite losses of injected sequences, got NaN or infinity in 3 of 3"):
        inject(model.float(), data.forget, replace(QUICK, learning_rate=1e30))


def test_fewer_than_one_neuron_a_layer_is_refused():
    with pytest.raises(UserError, match=r"got 0.001 of 500; the smallest is 0.002: try --set .ratios=.0.002."):
        drawn_neurons((4, 500), 1, 0.001, seed=0)
