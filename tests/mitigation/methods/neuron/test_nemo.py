"""NeMo's initial set and refinement against planted neurons, and against the bisection written out as a loop over edited models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import overfit, random_gpt
from torch import Tensor

from tinymem.data.rows import Rows
from tinymem.mitigation.ablation import Mask, ablate
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.neuron import nemo
from tinymem.models.adapters import logits, neuron_layers
from tinymem.models.gpt2 import GPT
from tinymem.testing import tiny_case

LAYERS, NEURONS = 2, 64


def planted_z(planted: list[tuple[int, int]], seed: int = 0) -> Tensor:
    """z-scores between 0 and 4, and between 4.3 and 6 for the planted neurons and as many others."""
    generator = torch.Generator().manual_seed(seed)
    z_LF = torch.rand(LAYERS, NEURONS, generator=generator) * 4
    decoys = [(layer, (neuron + 7) % NEURONS) for layer, neuron in planted]
    for layer, neuron in planted + decoys:
        z_LF[layer, neuron] = 4.3 + float(torch.rand((), generator=generator)) * 1.7
    return z_LF


def refine(monkeypatch, share, z_LF: Tensor, **options) -> tuple[Tensor, int]:
    """The refined set where `share(blocked)` says how many rows are still continued, and how many tests that took."""
    asked: list[Tensor] = []

    def spy(_, blocked_LF: Tensor) -> float:
        asked.append(blocked_LF.clone())
        return share(blocked_LF)

    monkeypatch.setattr(nemo._Tests, "share", spy)
    model, data = tiny_case("gpt")
    return nemo.refined(model, data, nemo.NemoConfig(**options), z_LF), len(asked)


@pytest.mark.parametrize("seed", range(4))
def test_refinement_keeps_the_planted_neurons_and_no_other(monkeypatch, seed: int) -> None:
    """Rows are lost exactly where all planted neurons are blocked."""
    planted = [(0, 3 + seed), (0, 40), (1, 11), (1, 60 - seed)]

    def share(blocked_LF: Tensor) -> float:
        return 0.0 if all(blocked_LF[place] for place in planted) else 1.0

    found, tests = refine(monkeypatch, share, planted_z(planted, seed))
    assert sorted(map(tuple, found.nonzero().tolist())) == sorted(planted)
    assert tests <= 17 + LAYERS + 2 * len(planted) * math.log2(NEURONS), "bisection asks about g log F tests"


def test_refinement_keeps_as_many_as_removal_needs(monkeypatch) -> None:
    """Any three of six suffice: three stay, those with the highest z, for the least are given back first."""
    planted = [(1, neuron) for neuron in (2, 9, 16, 23, 30, 37)]
    z_LF = planted_z(planted)
    found, _ = refine(monkeypatch, lambda blocked: float(sum(bool(blocked[p]) for p in planted) < 3), z_LF)
    assert found.sum() == 3 and not found[0].any()
    highest = sorted(planted, key=lambda place: -float(z_LF[place]))[:3]
    assert all(found[place] for place in highest)


def test_nothing_is_kept_where_removal_needs_nothing(monkeypatch) -> None:
    found, tests = refine(monkeypatch, lambda _: 0.0, planted_z([(0, 1)]))
    assert not found.any() and tests <= 1 + LAYERS


def test_a_set_that_never_suffices_stays_where_it_got(monkeypatch) -> None:
    """All 17 thresholds fail; refinement then gives back what does not make it worse."""
    planted = [(0, 5), (1, 6)]
    found, _ = refine(monkeypatch, lambda blocked: 1.0 - 0.2 * sum(bool(blocked[p]) for p in planted), planted_z(planted))
    assert sorted(map(tuple, found.nonzero().tolist())) == planted


def test_the_bottom_layer_can_be_left_out(monkeypatch) -> None:
    planted = [(0, 5), (1, 6)]
    found, _ = refine(monkeypatch, lambda blocked: float(not blocked[1, 6]), planted_z(planted), skip_bottom=True)
    assert found.nonzero().tolist() == [[1, 6]]


def test_untested_neurons_stay_blocked(monkeypatch) -> None:
    planted = [(0, 3), (1, 11)]
    z_LF = planted_z(planted)
    whole, _ = refine(monkeypatch, lambda blocked: float(not all(blocked[p] for p in planted)), z_LF)
    few, tests = refine(monkeypatch, lambda blocked: float(not all(blocked[p] for p in planted)), z_LF, tests=5)
    assert tests <= 5 and few.sum() > whole.sum() and bool((few | ~whole).all())


@pytest.fixture(scope="module")
def memorized() -> tuple[GPT, MitigationData]:
    """A model that continues four rows exactly, and other rows for the comparison."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 14, (24, 24), generator=generator)
    model = overfit(random_gpt(seed=5), ids[:4], steps=150)
    return model, MitigationData(forget=Rows.of(ids[:4], 8), retain=Rows.of(ids[4:], 8), seed=1)


def by_hand(model: GPT, data: MitigationData, z_LF: Tensor, tolerated: float) -> Tensor:
    """The definition as a loop: each test edits a copy of the model and lets it continue the prompts; sets are kept on a stack."""

    @torch.no_grad()
    def continued(blocked: set[tuple[int, int]]) -> float:
        layers = neuron_layers(model)
        masks = {layer.weight_name: torch.tensor([(layer.index, i) in blocked for i in range(layer.neurons)]) for layer in layers}
        edited, right = ablate(model, Mask("neuron", masks)), 0
        for row, prompt in zip(data.forget.ids, data.forget.prompt.tolist(), strict=True):
            text = row[:prompt].tolist()
            while len(text) < len(row):
                text.append(int(logits(edited, torch.tensor([text]))[0, -1].argmax()))
            right += text == row.tolist()
        return right / len(data.forget)

    L, F = z_LF.shape
    for step in range(17):
        top = {(layer, i) for layer in range(L) for i in z_LF[layer].argsort(descending=True)[:step].tolist()}
        blocked = top | {(layer, i) for layer in range(L) for i in range(F) if z_LF[layer, i] > 5 - 0.25 * step}
        if continued(blocked) <= tolerated:
            break
    else:
        tolerated = continued(blocked)
    for layer in reversed(range(L)):
        stack = [sorted((place for place in blocked if place[0] == layer), key=lambda place: float(z_LF[place]))]
        while stack:
            members = stack.pop()
            if members and continued(blocked - set(members)) <= tolerated:
                blocked = blocked - set(members)
            elif len(members) > 1:
                stack += [members[len(members) // 2 :], members[: len(members) // 2]]
    found = torch.zeros(L, F, dtype=torch.bool)
    for place in blocked:
        found[place] = True
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("tolerated", [0.0, 0.5])
def test_refinement_equals_the_loop_and_removes(memorized: tuple[GPT, MitigationData], tolerated: float) -> None:
    model, data = memorized
    config = nemo.NemoConfig(tolerated=tolerated, tests=10_000)
    z_LF = nemo.by_row(model, data, config).mean(0)
    assert nemo._Tests(model, data, config).share(torch.zeros_like(z_LF, dtype=torch.bool)) == 1, "the rows are memorized"
    found = nemo.refined(model, data, config, z_LF)
    assert torch.equal(found, by_hand(model, data, z_LF, tolerated))
    assert 0 < found.sum() < found.numel() / 2
    share = nemo._Tests(model, data, config).share
    assert share(found) <= tolerated
    scores = nemo.nemo(model, data, config).values
    flat = torch.stack([scores[layer.weight_name] for layer in neuron_layers(model)])
    assert flat[found].min() > flat[~found].max(), "what removal needs ranks above all else"
    alone = nemo.nemo(model, data, replace(config, refine=False)).values
    torch.testing.assert_close(torch.stack(list(alone.values())), z_LF)
