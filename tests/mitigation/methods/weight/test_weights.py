"""Durable, SOU, Greedy, Subnet and the random controls against dense or step-by-step recomputation."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tinymem.data.rows import concatenate
from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import group_counts
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods import pieces
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.weight import _batches, _row_gradients, balanced_subnet, durable, durable_agg, greedy, sou, subnet
from tinymem.models.adapters import in_out, logits, mlp_parameters
from tinymem.testing import FAMILIES, tiny_case


@pytest.mark.parametrize("family", FAMILIES)
def test_durable_equals_autograd_and_agg_ranks_the_whole_model(family):
    model, data = tiny_case(family)
    scores = durable.durable(model, data, durable.DurableConfig(batch_size=4)).values
    row_losses(model, data.forget).sum().backward()
    gradients = {name: p.grad.abs() for name, p in mlp_parameters(model).items()}
    model.zero_grad(set_to_none=True)
    for name, gradient in gradients.items():
        torch.testing.assert_close(scores[name], gradient)
    edited = apply(UNLEARNERS.get("durable-agg"), model, data, durable_agg.DurableAggConfig(ratio=0.1, batch_size=6))
    dropped = torch.cat([(edited.get_parameter(n) != p).flatten() for n, p in mlp_parameters(model).items()])
    gone = torch.cat([g.flatten() for g in gradients.values()])
    assert gone[dropped].min() >= gone.topk(int(0.1 * len(gone))).values[-1] * (1 - 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_durable_over_the_suffix(family):
    model, data = tiny_case(family)
    scores = durable.durable(model, data, durable.DurableConfig(over="suffix", batch_size=4)).values
    for row in data.forget.ids:
        loss = torch.nn.functional.cross_entropy(logits(model, row[None])[0, 4:-1], row[5:])
        loss.backward()
    for name, score in scores.items():
        torch.testing.assert_close(score, model.get_parameter(name).grad.abs(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("over", ["row", "suffix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_row_gradients_equal_a_loop(family, over):
    model, data = tiny_case(family)
    found = dict(_row_gradients.row_gradients(model, data.forget, over))
    parameters = mlp_parameters(model)
    assert list(found) == list(parameters)
    for n, loss in enumerate(row_losses(model, data.forget, over)):
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            torch.testing.assert_close(found[name][n], in_out(model, gradient).flatten(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_sou_equals_a_dense_inverse(family):
    model, data = tiny_case(family)
    config = sou.SOUConfig(block=30, damp=1e-4, batch_size=4)
    scores = sou.sou(model, data, config).values
    for name, weight in list(mlp_parameters(model).items())[:2]:
        gradients = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in row_losses(model, data.forget)]
        G = torch.stack([in_out(model, gradient).flatten() for gradient in gradients]).double()
        fisher = torch.diag(torch.full((G.shape[1],), 1e-4, dtype=torch.float64)) + G.T @ G / len(G)
        inverse = torch.cat([torch.linalg.inv(fisher[a : a + 30, a : a + 30]).diagonal() for a in range(0, len(fisher), 30)])
        expected = in_out(model, weight.detach()).double().flatten() ** 2 / (2 * inverse)
        torch.testing.assert_close(in_out(model, scores[name]).flatten().double(), expected, rtol=1e-3, atol=1e-12)


def test_sou_halves_a_batch_that_does_not_fit(monkeypatch):
    """Memory runs out after some tensors' gradients were counted: no gradient is lost, none is counted twice."""
    model, data = tiny_case("gpt-neox")
    whole = sou.sou(model, data, sou.SOUConfig(block=30, damp=1e-4, batch_size=4)).values

    def scarce(model, rows, over):
        for count, found in enumerate(_row_gradients.row_gradients(model, rows, over)):
            if len(rows) > 2 and count == 3:
                raise torch.OutOfMemoryError("too many rows")
            yield found

    monkeypatch.setattr(sou, "row_gradients", scarce)
    with pytest.warns(UserWarning, match="out of memory with 4 rows at once"):
        halved = sou.sou(model, data, sou.SOUConfig(block=30, damp=1e-4, batch_size=4)).values
    for name, score in halved.items():
        torch.testing.assert_close(score, whole[name], atol=0, rtol=1e-5)


def test_sou_takes_at_most_so_many_rows():
    model, data = tiny_case("gpt")
    few = sou.sou(model, data, sou.SOUConfig(gradients=2)).values
    picked = data.forget.take(torch.randperm(6, generator=data.generator())[:2])
    same = sou.sou(model, replace(data, forget=picked), sou.SOUConfig()).values
    for name, score in few.items():
        torch.testing.assert_close(score, same[name], rtol=1e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("criterion", ["product", "gradient"])
def test_greedy_equals_a_step_by_step_recomputation(family, criterion):
    model, data = tiny_case(family)
    config = greedy.GreedyConfig(ratio=0.002, batch_size=5, criterion=criterion)
    scores = greedy.greedy(model, data, config).values
    ((_, count),) = group_counts(model, {n: p.numel() for n, p in mlp_parameters(model).items()}, config)
    edited, rows, taken = deepcopy(model), concatenate([data.forget, data.retain]), set()
    generator, draws = data.generator(), []
    while len(draws) < count:
        draws += list(_batches.batches(6, 10, "shuffled", 5, generator))
    for place, index in zip(range(count, 0, -1), draws, strict=False):
        losses = row_losses(edited, rows.take(index))
        parameters = mlp_parameters(edited)
        gradients = torch.autograd.grad(torch.where(index < 6, -losses, losses).sum(), list(parameters.values()))
        values = [
            (g * p if criterion == "product" else g.abs()).detach().flatten() for g, p in zip(gradients, parameters.values(), strict=True)
        ]
        best = next(i for i in torch.cat(values).argsort(descending=True).tolist() if i not in taken)
        taken.add(best)
        assert torch.cat([s.flatten() for s in scores.values()])[best] == place
        for parameter, part in zip(parameters.values(), torch.arange(sum(map(len, values))).split([len(v) for v in values]), strict=True):
            parameter.data[(part == best).view_as(parameter)] = 0
    assert sum(int((s > 0).sum()) for s in scores.values()) == count


def test_greedy_in_parts_and_pieces_removes_the_same(monkeypatch):
    """A tensor at a time, and two rows of a batch at a time, as a large model goes through."""
    model, data = tiny_case("gpt-neox")
    config, found = greedy.GreedyConfig(ratio=0.01, per_step=7, batch_size=5), []
    for part, rows in ((greedy.PART, None), (1, 2)):
        monkeypatch.setattr(greedy, "PART", part)
        monkeypatch.setattr(pieces, "rows_at_once", lambda *_, rows=rows, **__: rows)
        found.append(greedy.greedy(model, data, config).values)
    assert all(torch.equal(scores, found[1][name]) for name, scores in found[0].items())
    assert max(float(scores.max()) for scores in found[0].values()) == sum(int((scores > 0).sum()) for scores in found[0].values())


def test_greedy_takes_a_weight_a_step_for_so_many_of_the_model(monkeypatch):
    model, data = tiny_case("gpt")
    eligible = sum(p.numel() for p in mlp_parameters(model).values())
    for a_weight, weights in ((eligible // 3, 3), (grids.WEIGHTS_A_STEP, 1)):
        monkeypatch.setattr(grids, "WEIGHTS_A_STEP", a_weight)
        data.found.clear()
        auto, fixed = (greedy.greedy(model, data, greedy.GreedyConfig(ratio=0.01, per_step=m)).values for m in ("auto", weights))
        assert data.found == {"per_step": weights} and all(torch.equal(scores, fixed[name]) for name, scores in auto.items())
    with pytest.raises(UserError, match="per_step of at least 1, got 0"):
        greedy.GreedyConfig(per_step=0)


@pytest.mark.parametrize("criterion", ["product", "gradient"])
def test_the_highest_of_many_values_by_their_chunks(monkeypatch, criterion):
    monkeypatch.setattr(greedy, "CHUNK", 16)
    monkeypatch.setattr(greedy, "MANY", 10)
    gradients, weights = torch.randn(2, 331, generator=torch.Generator().manual_seed(0))
    removed = (torch.arange(331) % 7 == 0) | ((torch.arange(331) >= 40) & (torch.arange(331) < 80))
    values = (gradients * weights if criterion == "product" else gradients.abs()).masked_fill(removed, float("-inf"))
    for count in (1, 7, 19, 25):
        found, places = greedy.highest_of(gradients, weights, removed, count, criterion)
        assert torch.equal(found, values.topk(count).values) and torch.equal(values[places], found) and len(places.unique()) == count


def test_greedy_steps_of_many_weights_and_its_scope():
    model, data = tiny_case("gpt")
    few = greedy.greedy(model, data, greedy.GreedyConfig(ratio=0.01, per_step=10, sampler="balanced")).values
    flat = torch.cat([s.flatten() for s in few.values()])
    count = int(0.01 * len(flat))
    assert sorted(flat[flat > 0].tolist()) == list(range(1, count + 1))
    with pytest.raises(UserError, match="scope 'model'"):
        greedy.GreedyConfig(scope="layer")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("drop", ["highest", "lowest"])
def test_subnet_is_balanced_subnet_with_forget_rows_only(family, drop):
    model, data = tiny_case(family)
    options = {"ratio": 0.1, "epochs": 3, "drop": drop, "batch_size": 4}
    alone = subnet.subnet(model, data, subnet.SubnetConfig(**options))
    no_retain = replace(data, retain=data.retain.take(torch.arange(0)))
    balanced = balanced_subnet.balanced_subnet(model, no_retain, balanced_subnet.BalancedSubnetConfig(loss_weight=0.0, **options))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), balanced.parameters(), strict=True))


@pytest.mark.slow
def test_subnet_raises_the_loss_more_than_chance():
    model, data = tiny_case("gpt")
    config = subnet.SubnetConfig(ratio=0.1, epochs=20, batch_size=3)
    options = {"start": {"epochs": 0}, "highest": {}, "lowest": {"drop": "lowest"}}
    edited = {name: subnet.subnet(model, data, replace(config, **change)) for name, change in options.items()}
    with torch.no_grad():
        losses = {name: float(row_losses(m, data.forget).mean()) for name, m in edited.items()}
    assert losses["highest"] > losses["start"] + 0.5 and losses["lowest"] > losses["start"] + 0.5


@pytest.mark.parametrize("name", ["random-weights", "random-neurons"])
def test_random_controls_are_uniform_and_seeded(name):
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get(name)
    first, other = (
        torch.cat([s.flatten() for s in method.function(model, d, method.config()).values.values()]) for d in (data, replace(data, seed=4))
    )
    assert not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 1 and abs(float(first.mean()) - 0.5) < 0.1
