"""Planted neurons (INJ, Chang et al.): a row is written into 5 % of the neurons; which scores find them?"""

from copy import deepcopy

import pytest
import torch

from tinymem.data.rows import Rows
from tinymem.mitigation.method import UNLEARNERS, MitigationData
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.sequence_level import scores_by_row
from tinymem.models.adapters import neuron_layers
from tinymem.models.gpt2 import GPT, GPTConfig

VOCABULARY, LENGTH, SHARE, SEEDS = 32, 49, 0.05, range(3)


def inject(model, row, seed):
    """A copy whose value vectors of some neurons alone were trained on a row, and which neurons [L, F] those are."""
    planted = deepcopy(model)
    layers = neuron_layers(planted)
    count = len(layers) * layers[0].neurons
    gold = torch.zeros(count, dtype=torch.bool)
    gold[torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: int(SHARE * count)]] = True
    gold = gold.view(len(layers), -1)
    weights = [layer.module.weight for layer in layers]
    optimizer = torch.optim.Adam(weights, lr=0.01)
    for _ in range(120):
        loss = row_losses(planted, row).mean()
        for weight, gradient, chosen in zip(weights, torch.autograd.grad(loss, weights), gold, strict=True):
            weight.grad = gradient * chosen
        optimizer.step()
    for old, new, chosen in zip(neuron_layers(model), layers, gold, strict=True):
        assert torch.equal(old.values_FD()[~chosen], new.values_FD()[~chosen]), "only chosen value vectors may change"
    return planted, gold


def recall(scores, gold):
    """Share of the planted neurons among the highest scores of each layer."""
    count = round(gold.shape[1] * SHARE)
    found = torch.zeros_like(gold).scatter_(1, scores.topk(count, dim=1).indices, True)
    return float((found & gold).sum() / gold.sum())


@pytest.fixture(scope="module")
def planted():
    """Models with a planted row each, their data and their planted neurons."""
    model = GPT(GPTConfig(vocab_size=VOCABULARY, n_positions=LENGTH, n_layer=4, n_embd=64, n_head=2), seed=0).eval()
    cases = []
    for seed in SEEDS:
        row = Rows.of(torch.randint(0, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(100 + seed)))
        found, gold = inject(model, row, seed)
        cases.append((found, MitigationData(forget=row, retain=row, seed=seed), gold))
    return cases


def mean_recall(planted, name, **options):
    method = UNLEARNERS.get(name)
    config = method.config(**options)
    return sum(recall(scores_by_row(method, model, data, config)[0], gold) for model, data, gold in planted) / len(planted)


@pytest.mark.thorough
def test_methods_find_planted_neurons_in_the_expected_order(planted):
    found = {
        "zero": mean_recall(planted, "zero"),
        "hard-concrete": mean_recall(planted, "hard-concrete", epochs=200, penalty=100.0, learning_rate=1e-2),
        "act": mean_recall(planted, "act"),
        "random": mean_recall(planted, "random-neurons"),
    }
    assert found["zero"] >= found["hard-concrete"] > found["act"] > 3 * found["random"], found
    assert found["random"] == pytest.approx(SHARE, abs=0.05)
    assert mean_recall(planted, "ig") > 0.6 and mean_recall(planted, "slim", epochs=100) > 0.5


@pytest.mark.slow
def test_the_planted_neurons_themselves_have_recall_one(planted):
    _, _, gold = planted[0]
    assert recall(gold.float(), gold) == pytest.approx(float(gold.sum(1).clamp(max=13).sum() / gold.sum()))
