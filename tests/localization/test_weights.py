"""INJ for weights: injection against one sequence at a time, restoration, and recall against a brute-force count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.injection import InjectionConfig
from tinymem.localization.weights import (
    Question,
    drawn_weights,
    inject_weights,
    injected_weights,
    matrices,
    scores_of_weights,
    weight_recalls,
)
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.method import UNLEARNERS, MethodCall, Properties, Unlearner
from tinymem.models.adapters import layer_of, logits, mlp_parameters
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.testing import config_of, tiny_case

QUICK = InjectionConfig(ratio=0.1, steps=8, learning_rate=0.1, loss=1.0)


def case(family="gpt"):
    model, data = tiny_case(family)
    ids = torch.randint(2, 12, (3, 12), generator=torch.Generator().manual_seed(4))
    rows = Rows.ragged([ids[0].tolist(), ids[1, :9].tolist(), ids[2].tolist()], torch.ones(3).long(), torch.tensor([12, 9, 12]), 12)
    return model.double().eval(), replace(data, forget=rows)


def end_to_end(model):
    return torch.cat([matrix.flatten() for matrix in matrices(model).values()])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_sequences_together_equal_sequences_apart(family):
    """A plain loop: one sequence, the gradient of every matrix masked to the chosen weights, one Adam over whole matrices."""
    model, data = case(family)
    before = fingerprint(model)
    together = inject_weights(model, data.forget, QUICK)
    assert first_change(before, model) is None
    for n, length in enumerate((12, 9, 12)):
        alone, ids = tiny_case(family)[0].double().eval(), data.forget.ids[n : n + 1, :length]
        whole = torch.zeros(len(end_to_end(alone)))
        whole[together.place_SN[n]] = 1
        parts = whole.split([m.numel() for m in matrices(alone).values()])
        masks = [part.view(m.shape) for part, m in zip(parts, matrices(alone).values(), strict=True)]
        weights = list(mlp_parameters(alone, matrices_only=True).values())
        optimizer = torch.optim.Adam(weights, lr=QUICK.rate)
        for steps in range(QUICK.steps + 1):
            loss = F.cross_entropy(logits(alone, ids)[0, :-1].float(), ids[0, 1:])
            if loss < QUICK.loss or steps == QUICK.steps:
                break
            optimizer.zero_grad()
            loss.backward()
            for weight, mask in zip(weights, masks, strict=True):
                weight.grad *= mask if family == "gpt2" else mask.T
            optimizer.step()
        assert together.steps_S[n] == steps > 0
        torch.testing.assert_close(together.losses_S[n], loss.detach().float(), atol=1e-4, rtol=1e-4)
        with injected_weights(model, together, n):
            torch.testing.assert_close(end_to_end(model), end_to_end(alone), atol=1e-4, rtol=1e-4)


def test_a_sequence_moves_its_own_weights_and_leaves_nothing_behind(monkeypatch):
    model, data = case()
    found = inject_weights(model, data.forget, replace(QUICK, steps=100, loss=1.5))
    before, weights = fingerprint(model), end_to_end(model).clone()
    assert found.reached_S.all() and (found.losses_S < 1.5).all() and len(set(found.steps_S.tolist())) > 1
    with injected_weights(model, found, 1):
        assert (end_to_end(model) != weights).nonzero().flatten().tolist() == found.place_SN[1].tolist()
        added, held = (end_to_end(model) - weights).norm(), weights[found.place_SN[1]].norm()
        assert float(found.relative_S[1]) == pytest.approx(float(added / held), rel=1e-5)
        loss = F.cross_entropy(logits(model, data.forget.ids[1:2, :9])[0, :-1], data.forget.ids[1, 1:9])
        assert loss.item() == pytest.approx(float(found.losses_S[1]), abs=1e-5)
    assert first_change(before, model) is None, "the weights are restored bit for bit"
    with pytest.raises(ZeroDivisionError), injected_weights(model, found, 0):
        raise ZeroDivisionError
    assert first_change(before, model) is None
    monkeypatch.setattr("tinymem.localization.weights.MAXIMUM_CHANGES", 1)
    torch.testing.assert_close(inject_weights(model, data.forget, replace(QUICK, steps=100, loss=1.5)).change_SN, found.change_SN)


def given(scores):
    """A scorer that always answers the same."""
    method = Unlearner("given", "score", lambda *_: Scores("weight", scores), AblationConfig, Properties(unit="weight", order="zeroth"))
    return MethodCall(method, AblationConfig())


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_recall_is_a_count_by_brute_force_and_chance_is_the_share_that_is_named(family):
    model, data = case(family)
    injection, names = inject_weights(model, data.forget, replace(QUICK, steps=1)), list(matrices(model))
    draws = torch.Generator().manual_seed(1)
    scores = {name: torch.randint(50, p.shape, generator=draws).float() for name, p in mlp_parameters(model, matrices_only=True).items()}
    asked = [Question(top, scope) for scope in ("tensor", "layer", "model") for top in (0.05, 0.3)]
    recalls, seconds = weight_recalls(given(scores), model, data, injection, asked)
    assert seconds > 0
    by_name = dict(zip(names, scores_of_weights(given(scores), model, data), strict=True))
    for question, found in zip(asked, recalls, strict=True):
        of = {"tensor": str, "layer": lambda name: layer_of(model, name), "model": lambda name: 0}[question.scope]
        picked, named, start = set(), 0, 0
        places = {}
        for name in names:
            places[name], start = start, start + by_name[name].numel()
        for group in {of(name) for name in names}:
            entries = [(-v, places[n] + i) for n in names if of(n) == group for i, v in enumerate(by_name[n].flatten().tolist())]
            count = int(len(entries) * question.top + 1e-6) if question.scope == "model" else round(len(entries) * question.top)
            picked |= {place for _, place in sorted(entries)[:count]}
            named += count
        for n in range(3):
            hits = sum(place in picked for place in injection.place_SN[n].tolist())
            assert float(found.values_S[n]) == pytest.approx(hits / injection.place_SN.shape[1])
        assert found.chance == pytest.approx(named / start)


def test_the_gold_weights_are_found_where_they_are_named():
    model, data = case()
    injection = inject_weights(model, data.forget.take(torch.tensor([0])), replace(QUICK, steps=1))
    marks = torch.zeros(len(end_to_end(model)))
    marks[injection.place_SN[0]] = 1
    parts = marks.split([m.numel() for m in matrices(model).values()])
    scores = {n: part.view(m.shape).T for (n, m), part in zip(matrices(model).items(), parts, strict=True)}  # our GPT keeps [out, in]
    one = replace(data, forget=data.forget.take(torch.tensor([0])))
    (whole, half), _ = weight_recalls(given(scores), model, one, injection, [Question(0.1, "model"), Question(0.05, "model")])
    assert whole.mean == 1 and half.mean == pytest.approx(int(0.05 * len(marks)) / injection.place_SN.shape[1])
    nowhere = weight_recalls(given({next(iter(scores)): next(iter(scores.values())) * 0}), model, one, injection, [Question(1.0, "tensor")])
    assert nowhere[0][0].mean == 1, "all may be named, also what a scorer leaves out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random-weights", "durable", "sou", "subnet", "balanced-subnet"])
def test_each_method_is_asked_about_the_model_that_holds_the_sequence(name):
    model, data = case()
    model, data = model.float(), replace(data, retain=data.retain.filled(12))
    injection, method = inject_weights(model, data.forget, QUICK), UNLEARNERS.get(name)
    call = MethodCall(method, config_of(method, ratio=0.1, epochs=2))
    before = fingerprint(model)
    recalls, _ = weight_recalls(call, model, data, injection, [Question(0.1, "tensor")])
    assert first_change(before, model) is None
    for n in range(3):
        alone = tiny_case("gpt")[0].eval()
        with injected_weights(model, injection, n):
            alone.load_state_dict(model.state_dict())
        scores = scores_of_weights(call, alone, replace(data, forget=data.forget.take(torch.tensor([n]))))
        named = torch.cat([(s.flatten().argsort(descending=True, stable=True).argsort() < round(0.1 * s.numel())) for s in scores])
        share = float(named[injection.place_SN[n]].double().mean())
        assert float(recalls[0].values_S[n]) == pytest.approx(share, abs=0.02), "but for ties that rounding makes"


@pytest.mark.parametrize("name", ["subnet", "balanced-subnet"])
@pytest.mark.parametrize("drop", ["highest", "lowest"])
def test_a_learned_mask_ranks_first_what_its_edit_drops(name, drop):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get(name)
    config = config_of(method, ratio=0.2, epochs=2, drop=drop)
    edited = dict(mlp_parameters(method.function(model, data, config), matrices_only=True))
    ranks = method.ranked(model, data, config).values
    for key, scores in ranks.items():
        dropped, kept = scores[edited[key] == 0], scores[edited[key] != 0]
        assert len(dropped) == int(0.2 * scores.numel() + 1e-6) and dropped.min() >= kept.max()


def test_draws_are_uniform_sorted_and_of_the_seed():
    places = drawn_weights([60, 40], 400, 0.1, seed=1)
    assert places.shape == (400, 10) and (places.diff(dim=1) > 0).all() and places.max() < 100
    assert torch.equal(places, drawn_weights([60, 40], 400, 0.1, seed=1)) and not torch.equal(places, drawn_weights([60, 40], 400, 0.1, 2))
    counts = torch.bincount(places.flatten(), minlength=100).double()
    assert float(((counts - 40) ** 2 / 40).sum()) < 150, "chi-squared of 99 degrees of freedom"


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UserError, match=r"expected ratios of at least one weight a matrix, got 0.01 of 40; the smallest is 0.025"):
        drawn_weights([60, 40], 1, 0.01, seed=0)
    model, data = case()
    for name in ("act", "finetune-clean"):
        method = UNLEARNERS.get(name)
        with pytest.raises(UserError, match=f"rank weights .*got {name}"):
            scores_of_weights(MethodCall(method, config_of(method)), model, data)
