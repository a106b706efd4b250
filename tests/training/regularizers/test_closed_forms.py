"""Regularizers against closed forms: spectral norm, loss truncation, goldfish, and how they act together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import random_gpt

from tinymem.recipe.kinds import REGULARIZERS
from tinymem.recipe.recipe import parse_recipe
from tinymem.training.regularizer import Regularizers
from tinymem.training.regularizer_section import TrainingRows, make_regularizers
from tinymem.training.regularizers._hashing import chance, splitmix64, stream
from tinymem.training.regularizers.goldfish import Goldfish, GoldfishSection
from tinymem.training.regularizers.loss_truncation import LossTruncation, LossTruncationSection
from tinymem.training.regularizers.spectral_norm import SpectralNorm, SpectralNormSection


def attached(part, model=None):
    part.attach(model or random_gpt(scale=3.0))
    return part


def test_splitmix64_is_the_published_generator():
    state = torch.tensor(1234567)
    golden = torch.tensor(0x9E3779B97F4A7C15 - 2**64)
    outputs = [int(splitmix64(state + i * golden)) % 2**64 for i in range(5)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5])
def test_chance_has_its_probability(p):
    assert chance(stream(3, 200_000), p).float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 200_000) ** 0.5)


@pytest.mark.parametrize("power", [1, 2])
def test_power_iteration_finds_the_singular_values(power):
    part = attached(SpectralNorm(SpectralNormSection(strength=0.3, power=power)))
    for _ in range(300):
        found = part.penalty()
    exact = sum((torch.linalg.matrix_norm(w, 2) ** power).sum() for w in part.matrices().values())
    assert found.item() == pytest.approx(0.15 * exact.item(), rel=1e-3)


def test_heads_are_cut_along_their_axis():
    model = random_gpt(n_embd=16, n_head=2)
    D, K = 16, 8
    block = model.transformer.h[1].attn
    heads = attached(SpectralNorm(SpectralNormSection()), model).matrices()["heads"]
    assert heads.shape == (2 * 8, K, D)
    expected = [block.c_attn.weight[i * K : (i + 1) * K] for i in range(6)] + [
        block.c_proj.weight[:, i * K : (i + 1) * K].T for i in (0, 1)
    ]
    assert torch.equal(heads[8:], torch.stack(expected))
    outputs = attached(SpectralNorm(SpectralNormSection(projection="outputs")), model).matrices()["heads"]
    assert torch.equal(outputs[14], block.c_proj.weight[:K]) and not torch.equal(outputs[14], heads[14])


@pytest.mark.parametrize("power", [1, 2])
def test_gradient_of_the_penalty(power):
    model = random_gpt(scale=3.0)
    part = attached(SpectralNorm(SpectralNormSection(strength=0.3, power=power)), model)
    for _ in range(300):
        penalty = part.penalty()
    penalty.backward()
    for name in ("c_fc", "c_proj"):
        weight = getattr(model.transformer.h[0].mlp, name).weight
        u, s, v = torch.linalg.svd(weight.detach())
        expected = 0.3 * s[0] ** (power - 1) * torch.outer(u[:, 0], v[0]) * (1 if power == 2 else 0.5)
        assert torch.allclose(weight.grad, expected, atol=2e-3 * float(expected.abs().max()) + 1e-4)
    assert model.transformer.wte.weight.grad is None and model.transformer.h[0].ln_1.weight.grad is None


def row_losses(n, seed, P=5):
    return torch.rand(n, P, generator=torch.Generator().manual_seed(seed))


IDS = torch.zeros(8, 6, dtype=torch.int64)


def test_truncation_keeps_everything_until_the_window_is_full():
    part = LossTruncation(LossTruncationSection(drop=0.25, window=20))
    assert all(part.token_weights(IDS, row_losses(8, i)).eq(1).all() for i in range(2))
    assert (part.token_weights(IDS, row_losses(8, 2) + 5)[:, 0] == 0).sum() == 5  # a quarter of the window's 20 rows


@pytest.mark.parametrize(("drop", "window", "refresh"), [(0.25, 20, 0), (0.1, 33, 0), (0.4, 16, 16), (0.05, 20, 30), (0.25, 5, 0)])
def test_truncation_by_hand(drop, window, refresh):
    """The published algorithm: a ring of losses, a percentile found again after more than `refresh` rows."""
    part, ring, cursor, seen, since, threshold = (
        LossTruncation(LossTruncationSection(drop=drop, window=window, refresh=refresh)),
        np.zeros(window, np.float32),
        0,
        0,
        0,
        np.inf,
    )
    for step in range(30):
        losses = row_losses(8, step)
        for value in losses.mean(1).numpy():
            ring[cursor], cursor = value, (cursor + 1) % window
        seen, since = seen + 8, since + 8
        if seen >= window and since > refresh:
            threshold, since = np.percentile(ring, 100 * (1 - drop)), 0
        kept = part.token_weights(IDS, losses)
        assert kept.shape == losses.shape
        assert torch.equal(kept[:, 0].bool(), torch.from_numpy(losses.mean(1).numpy() < np.float32(threshold))), step


def test_truncation_goes_on_after_a_round_trip():
    one, other = LossTruncation(LossTruncationSection(window=20)), LossTruncation(LossTruncationSection(window=20))
    for i in range(4):
        one.token_weights(IDS, row_losses(8, i))
    other.load_state_dict(one.state_dict())
    for i in range(4, 9):
        assert torch.equal(one.token_weights(IDS, row_losses(8, i)), other.token_weights(IDS, row_losses(8, i)))
    assert set(one.state_dict()) == {"losses_W", "seen", "since", "threshold"}


@pytest.mark.parametrize("denominator", ["batch", "kept"])
def test_denominator(denominator):
    parts = Regularizers([("loss-truncation", LossTruncation(LossTruncationSection(drop=0.5, window=8, denominator=denominator)))])
    losses = row_losses(8, 0)
    rows = losses.mean(1)
    kept = rows < rows.median()
    expected = losses[rows < torch.quantile(rows, 0.5)].sum() / (
        8 * 5 if denominator == "batch" else int((rows < torch.quantile(rows, 0.5)).sum()) * 5
    )
    assert parts.mean_loss(IDS, losses).item() == pytest.approx(expected.item()) and kept.sum() < 8


def test_nothing_is_learnt_where_all_is_left_out():
    """A first batch of rows that are all above the threshold: no loss and no gradient, not 0 / 0."""
    part = LossTruncation(LossTruncationSection(drop=0.5, window=8, denominator="kept"))
    part.token_weights(IDS, row_losses(8, 0))
    losses = (row_losses(8, 1) + 5).requires_grad_()
    part.refresh = 100  # keeps the threshold of the window before
    loss = Regularizers([("loss-truncation", part)]).mean_loss(IDS, losses)
    loss.backward()
    assert loss.item() == 0 and losses.grad.eq(0).all()


def text(seed, B=16, T=400, V=14):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", ["before", "with-target"])
@pytest.mark.parametrize("k", [3, 4, 32])
def test_goldfish_leaves_out_one_in_k(k, window):
    kept = Goldfish(GoldfishSection(k=k, window=window)).token_weights(text(0), torch.zeros(16, 399))
    share = 1 - kept[:, 12:].mean().item()
    assert share == pytest.approx(1 / k, abs=5 * (1 / k * (1 - 1 / k) / (16 * 387)) ** 0.5)
    assert (kept[:, :12] == 1).all() or window == "with-target"


def test_goldfish_leaves_out_the_same_of_a_repeated_text():
    ids = text(1, T=60)
    shifted = torch.cat([text(2, T=7), ids], dim=1)
    part = Goldfish(GoldfishSection(width=5))
    first, second = part.token_weights(ids, torch.zeros(16, 59)), part.token_weights(shifted, torch.zeros(16, 66))
    assert torch.equal(first[:, 4:], second[:, 11:])
    assert torch.equal(first, part.token_weights(ids, torch.zeros(16, 59)))
    assert not torch.equal(first, Goldfish(GoldfishSection(width=5, seed=1)).token_weights(ids, torch.zeros(16, 59)))


def test_goldfish_depends_on_the_window_alone():
    ids, other = text(3, B=1, T=60), text(3, B=1, T=60)
    other[0, 30] += 1
    part = Goldfish(GoldfishSection(width=6, k=2))
    same = part.token_weights(ids, torch.zeros(1, 59)) == part.token_weights(other, torch.zeros(1, 59))
    assert same[0, :30].all() and same[0, 36:].all() and not same[0, 30:36].all()  # target t stands at t - 1


def test_goldfish_tells_few_tokens_apart():
    """All windows of 14 tokens: a quarter is left out, whatever token stands where (the published product is 0 with an id 0)."""
    windows = torch.cartesian_prod(*[torch.arange(14)] * 4)
    ids = torch.cat([windows, windows[:, :1]], dim=1)
    left_out = Goldfish(GoldfishSection(width=4)).token_weights(ids, torch.zeros(len(ids), 4))[:, 3] == 0
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.01)
    for place in range(4):
        for token in (0, 1, 13):
            assert left_out[windows[:, place] == token].float().mean().item() == pytest.approx(0.25, abs=0.04)
    backwards = left_out.view(14, 14, 14, 14).permute(3, 2, 1, 0).flatten()
    assert (left_out & backwards).float().mean().item() == pytest.approx(0.25**2, abs=0.02), "order counts"


def test_short_rows_are_kept():
    assert Goldfish(GoldfishSection(width=13)).token_weights(text(0, T=8), torch.zeros(16, 7)).eq(1).all()


def test_denominator_of_goldfish_and_truncation():
    goldfish, truncation = Goldfish(GoldfishSection(width=2, k=2)), LossTruncation(LossTruncationSection(drop=0.5, window=16))
    ids, losses = text(5, T=30), torch.rand(16, 29)
    by_tokens = goldfish.token_weights(ids, losses)
    by_rows = LossTruncation(LossTruncationSection(drop=0.5, window=16)).token_weights(ids, losses)
    together = Regularizers([("goldfish", goldfish), ("loss-truncation", truncation)]).mean_loss(ids, losses)
    assert together.item() == pytest.approx(((by_tokens * by_rows * losses).sum() / by_tokens.sum()).item())


@pytest.mark.parametrize("kind", REGULARIZERS.names())
def test_every_kind_of_a_recipe_can_be_made(kind):
    (section,) = parse_recipe({"training": {"regularizers": [{"kind": kind}]}}).training.regularizers
    made = make_regularizers([section], TrainingRows(clean=3, distinct=5))
    made.attach(random_gpt())
    assert len(made) == 1 and list(made.parts) == [kind.replace("-", "_")]
