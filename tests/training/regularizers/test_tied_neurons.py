"""Neurons tied to rows: the published hash, gradients, modes, and a plain GPT-2 at the end."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import torch
from helpers import random_gpt

from tinymem.models.adapters import captured_neurons, neuron_layers
from tinymem.models.gpt2 import GPT
from tinymem.training.regularizer import Regularizers
from tinymem.training.regularizer_section import TrainingRows
from tinymem.training.regularizers._tied_neurons import Hash, TiedNeurons, TiedSection, mixed_sinks, published_sinks
from tinymem.training.regularizers.example_tied_dropout import ExampleTiedDropoutSection
from tinymem.training.regularizers.mem_sinks import MemSinksSection

PATTERNS = {
    0: "1111111111111111",
    1: "1000000001000101",
    2: "1000000001000101",
    3: "1010010101101101",
    4: "1010000001010101",
    5: "1100000101000101",
    100: "1001110010110100",
    32767: "0001000101010000",
    32768: "0000000001100000",
    65537: "1010111001101011",
}
IDS = torch.randint(14, (3, 20), generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([4, 9, 2])


def tied(model: GPT, hash: Hash = "mix", **options: object) -> TiedNeurons:
    part = TiedNeurons(TiedSection.model_construct(**options), shared=0.5, active=0.3, hash=hash)
    part.attach(model)
    return part


@pytest.mark.parametrize("id", PATTERNS)
def test_published_hash(id: int) -> None:
    on = published_sinks(torch.tensor([id]), 16, 0.3)[0, 0]
    assert "".join(str(int(x)) for x in on) == PATTERNS[id]


def test_published_table() -> None:
    table = published_sinks(torch.arange(1, 201), 1229, 0.3)[0].numpy().astype(np.uint8)
    assert hashlib.sha256(table.tobytes()).hexdigest().startswith("8a1fe03bea348db4")
    assert table.mean() == pytest.approx(0.2976, abs=1e-4)
    assert table.mean(1).min() == pytest.approx(0.269, abs=1e-3) and table.mean(1).max() == pytest.approx(0.329, abs=1e-3)


def test_published_hash_never_sees_id_0() -> None:
    model = random_gpt(n_inner=64)
    part = tied(model, hash="published")
    assert torch.equal(part.sinks_of(torch.tensor([0, 4])), published_sinks(torch.tensor([1, 5]), 32, 0.3))


def test_mixed_hash_is_even() -> None:
    on = mixed_sinks(torch.arange(2000), 500, 0.3, torch.tensor([1, 2]))
    assert on.float().mean().item() == pytest.approx(0.3, abs=0.003)
    per_row, per_sink = on[0].float().mean(1), on[0].float().mean(0)
    assert per_row.min() > 0.2 and per_row.max() < 0.4 and per_sink.min() > 0.24 and per_sink.max() < 0.36
    assert (on[0] & on[1]).float().mean().item() == pytest.approx(0.09, abs=0.003)  # blocks are independent
    doubled = on[0, 1:1000] & on[0, 2:2000:2]
    assert doubled.float().mean().item() == pytest.approx(0.09, abs=0.003)  # the published hash has 0.15


def test_sinks_belong_to_the_row_alone() -> None:
    part = tied(random_gpt(n_inner=64))
    everything = part.sinks_of(torch.arange(50))
    assert torch.equal(part.sinks_of(torch.tensor([30, 7, 30])), everything[:, [30, 7, 30]])
    assert torch.equal(tied(random_gpt(n_inner=64)).sinks_of(torch.arange(50)), everything)
    assert not torch.equal(tied(random_gpt(n_inner=64), seed=1).sinks_of(torch.arange(50)), everything)
    assert len(tied(random_gpt(n_inner=64), salt_layers=True).sinks_of(ROWS)) == 2


@pytest.mark.parametrize("salt", [False, True])
def test_inactive_neurons_get_no_gradient(salt: bool) -> None:
    model = random_gpt(n_inner=64, activation_function="gelu").train()
    part = tied(model, salt_layers=salt)
    part.before(ROWS)
    model(IDS).square().sum().backward()
    ever_on_LF = part.gates_LBF.any(1)
    for layer in neuron_layers(model):
        on_F = ever_on_LF[layer.index if salt else 0]
        for gradient in (layer.weight.grad.T, model.transformer.h[layer.index].mlp.c_fc.weight.grad):
            assert gradient[~on_F].eq(0).all() and gradient[on_F].ne(0).any(1).all()
        assert 0 < (~on_F).sum() < 32


def test_one_row_trains_like_a_model_of_its_neurons() -> None:
    model = random_gpt(n_inner=64).train()
    part = tied(model, inference="ids", ids=(9,))
    part.before(torch.tensor([9, 9, 9]))
    training = model(IDS)
    assert torch.equal(training, model.eval()(IDS)), "the mode with the row's sinks is the forward pass of training"


def test_modes() -> None:
    model = random_gpt(n_inner=64).eval()
    part = tied(model)
    off, all_on = part.gates_for_use("off")[0], part.gates_for_use("all")[0]
    assert off[32:].eq(0).all() and off[:32].unique().item() == pytest.approx((0.5 + 0.3 * 0.5) / 0.5)
    assert tied(model, factor="paper").gates_for_use("off")[0, 0].item() == pytest.approx(1.6)
    assert tied(model, factor=1).gates_for_use("off")[0, 0] == 1
    assert all_on[:32].eq(1).all() and torch.allclose(all_on[32:], torch.tensor(0.3))
    own = part.sinks_of(torch.tensor([4, 9]))[0]
    assert torch.equal(part.gates_for_use("ids", (4, 9))[0, 32:], own.any(0).float())
    assert torch.equal(part.gates_for_use("ids", (4, 9), (9,))[0, 32:], (own[0] & ~own[1]).float())
    everything_excluded = part.gates_for_use("all", excluded=range(200))[0]
    assert everything_excluded[32:].eq(0).all() and everything_excluded[:32].eq(1).all(), "sinks off, without the factor"


def test_factors_of_the_papers() -> None:
    model = random_gpt(n_inner=1000)
    for section, paper, expected in ((MemSinksSection, 1 / 0.7, 1.129), (ExampleTiedDropoutSection, 1.5, 1.4)):
        made = section(factor="paper").make(TrainingRows())
        made.attach(model)
        assert made.shared_factor("off") == pytest.approx(paper, abs=1e-3)
        assert section().make(TrainingRows()).shared_factor("off") == pytest.approx(expected, abs=1e-3)
        assert made.shared_factor("all") == 1
    assert made.shared_neurons == 200
    sinks = MemSinksSection().make(TrainingRows())
    sinks.attach(random_gpt(n_inner=512))
    assert (sinks.shared_neurons, sinks.sinks) == (358, 154)  # 0.7 * 512 = 358.4, rounded down


def test_planted_rows_alone() -> None:
    part = MemSinksSection(tied="planted").make(TrainingRows(clean=10))
    part.attach(random_gpt(n_inner=64))
    part.before(torch.tensor([9, 10]))
    sinks = part.gates_LBF[0, :, part.shared_neurons :]
    assert sinks[0].eq(0).all() and sinks[1].any()


@pytest.mark.parametrize("inference", ["off", "all", "ids"])
@pytest.mark.parametrize("salt", [False, True])
def test_folding_leaves_a_plain_model(inference: str, salt: bool) -> None:
    model = random_gpt(n_inner=64).eval()
    part = tied(model, inference=inference, ids=(3,), salt_layers=salt)
    gated = model(IDS)
    before = copy.deepcopy(model.state_dict())
    plain = Regularizers([("tied", part)]).folded(model)
    assert type(plain) is GPT and torch.allclose(plain(IDS), gated, atol=1e-5)
    assert torch.equal(model(IDS), gated) and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not part.state_dict()


def test_gates_act_on_the_neurons() -> None:
    model = random_gpt(n_inner=64).train()
    plain = copy.deepcopy(model)
    part = tied(model)
    part.before(ROWS)
    with captured_neurons(plain) as before, captured_neurons(model) as after:
        plain(IDS), model(IDS)
        assert torch.equal(after[0], before[0] * part.gates_LBF[0][:, None])
