"""BalancedSubnet's mask, objective and batches, and fine-tuning, against hand computations."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tinymem.data.rows import Rows
from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods.finetuning._common import FinetuningConfig, finetune
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.weight._batches import batches, steps_per_epoch
from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, LearnedMaskConfig, initial_scores
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, coefficients
from tinymem.models.adapters import mlp_parameters
from tinymem.testing import config_of, tiny_case
from tinymem.training.optimizer import optimizer_tensors


def mask_of(family: str = "gpt", **options: Any) -> LearnedMask:
    model = tiny_case(family)[0]
    return LearnedMask(model, LearnedMaskConfig(**options), initial_scores(model, 0))


def scores_of(mask: LearnedMask) -> dict[str, torch.Tensor]:
    return mask.split(mask.scores_P)


def dropped_of(mask: LearnedMask) -> dict[str, torch.Tensor]:
    """The weights that the edit zeroes; a random model has no zeros of its own."""
    return {name: p == 0 for name, p in mlp_parameters(mask.edited(), matrices_only=True).items()}


def mean_of(rows: Rows) -> torch.Tensor:
    """Coefficients of the mean of the rows' losses."""
    return torch.full((len(rows),), 1 / len(rows))


@pytest.mark.parametrize("drop", ["highest", "lowest"])
@pytest.mark.parametrize("scope", ["tensor", "layer", "model"])
@pytest.mark.parametrize("ratio", [0.001, 0.29, 1.0])
def test_exact_sparsity(drop: str, scope: str, ratio: float) -> None:
    mask = mask_of(drop=drop, scope=scope, ratio=ratio)
    dropped = dropped_of(mask)
    assert set(dropped) == set(mlp_parameters(mask.model, matrices_only=True))
    for names in _groups(scope, list(dropped)):
        size = 1024 * len(names)
        ones = torch.cat([dropped[n].flatten() for n in names])
        scores = torch.cat([scores_of(mask)[n].abs().flatten() for n in names])
        assert int(ones.sum()) == int(ratio * size + 1e-6) and ones.dtype == torch.bool
        if 0 < ones.sum() < size:
            inside, outside = scores[ones == 1], scores[ones == 0]
            assert (inside.min() >= outside.max()) if drop == "highest" else (inside.max() <= outside.min())


def _groups(scope: str, names: list[str]) -> list[list[str]]:
    return {"tensor": [[n] for n in names], "layer": [names[:2], names[2:]], "model": [names]}[scope]


def test_the_edit_is_the_masked_model() -> None:
    mask, data = mask_of(ratio=0.3), tiny_case("gpt")[1]
    with torch.no_grad():
        assert torch.allclose(mask.masked()(data.forget.ids), mask.edited()(data.forget.ids), atol=1e-6)
    zeros = sum(int((p == 0).sum()) for p in mlp_parameters(mask.edited(), matrices_only=True).values())
    assert zeros == 4 * int(0.3 * 1024)


@pytest.mark.parametrize("family", ["gpt", "gpt2", "llama"])
def test_scores_start_as_linear_layers_do(family: str) -> None:
    mask = mask_of(family)
    for name, score in scores_of(mask).items():
        inputs = 64 if any(part in name for part in ("c_proj", "down_proj")) else 16
        assert score.abs().max().item() == pytest.approx(inputs**-0.5, rel=0.02), name


@pytest.mark.parametrize("drop", ["highest", "lowest"])
def test_straight_through_gradient_by_hand(drop: str) -> None:
    mask, data = mask_of(ratio=0.3, drop=drop, momentum=0.9, learning_rate=0.1, weight_decay=0.01), tiny_case("gpt")[1]
    before = {n: s.clone() for n, s in scores_of(mask).items()}
    plain = mask.edited()  # the masked weights as weights of their own
    row_losses(plain, data.forget).mean().backward()
    mask.step(data.forget, mean_of(data.forget))
    sign = 1 if drop == "highest" else -1
    for name, score in scores_of(mask).items():
        # W' = W (1 - d) with d the choice, treated as sign * |s|: dL/ds = -dL/dW' * W * sign * sgn(s)
        gradient = -plain.get_parameter(name).grad * mask.model.get_parameter(name) * sign * before[name].sgn()
        assert gradient.abs().max() > 0
        stepped = before[name] - 0.1 * (gradient + 0.01 * before[name])  # the first step of SGD, momentum empty
        assert torch.allclose(score, stepped, atol=1e-7), name
    assert all(p.grad is None for p in mask.model.parameters())


def test_steps_lower_the_objective() -> None:
    mask, data = mask_of(ratio=0.2, learning_rate=1.0), tiny_case("gpt")[1]
    losses = []
    for _ in range(12):
        with torch.no_grad():
            losses.append(float(row_losses(mask.masked(), data.retain).mean()))
        mask.step(data.retain, mean_of(data.retain))
    assert min(losses[6:]) < losses[0]


@pytest.mark.parametrize(("average", "expected"), [("class", 0.7 * 2.0 - 0.3 * 6.0), ("row", (0.7 * (1 + 2 + 3) - 0.3 * (5 + 7)) / 5)])
def test_balanced_objective_by_hand(average: str, expected: float) -> None:
    losses, forget = torch.tensor([1.0, 5.0, 2.0, 7.0, 3.0]), torch.tensor([False, True, False, True, False])
    config = BalancedSubnetConfig(loss_weight=0.7, average=average)
    assert (coefficients(forget, config) * losses).sum().item() == pytest.approx(expected)


def test_a_class_that_a_batch_lacks_adds_nothing() -> None:
    losses, config = torch.tensor([1.0, 3.0]), BalancedSubnetConfig(loss_weight=0.7)
    assert (coefficients(torch.tensor([False, False]), config) * losses).sum().item() == pytest.approx(1.4)
    assert (coefficients(torch.tensor([True, True]), config) * losses).sum().item() == pytest.approx(-0.6)


@pytest.mark.parametrize(("forget", "retain", "size"), [(6, 20, 8), (1, 7, 4), (30, 10, 8), (3, 3, 1), (5, 40, 128)])
def test_samplers(forget: int, retain: int, size: int) -> None:
    def epoch(sampler: str) -> list[torch.Tensor]:
        return list(batches(forget, retain, sampler, size, torch.Generator().manual_seed(0)))

    balanced, half = epoch("balanced"), max(1, size // 2)
    assert sorted(i for batch in balanced for i in batch.tolist() if i >= forget) == list(range(forget, forget + retain))
    for batch in balanced:
        seen = batch[batch < forget].tolist()
        assert len(seen) == len(set(seen)) == min(half, forget)
    times = torch.bincount(torch.cat([batch[batch < forget] for batch in balanced]), minlength=forget)
    assert times.max() - times.min() <= 1  # the forget rows take turns
    shuffled = torch.cat(epoch("shuffled"))
    assert sorted(shuffled.tolist()) == list(range(forget + retain))
    assert all(len(batch) <= size for batch in epoch("shuffled"))
    for sampler in ("balanced", "shuffled"):
        assert steps_per_epoch(forget, retain, sampler, size) == len(epoch(sampler))


def test_balanced_subnet_refuses_a_ratio_that_rounds_to_nothing() -> None:
    method, (model, data) = UNLEARNERS.get("balanced-subnet"), tiny_case("gpt")
    with pytest.raises(Refused, match=r"smallest that acts is 0\.000977"):
        apply(method, model, data, config_of(method, ratio=0.0009))


# ---- fine-tuning ----------------------------------------------------------------------------------------------------------------------


def test_finetuning_goes_on_with_the_optimizer() -> None:
    model, data = tiny_case("gpt")
    config = FinetuningConfig(epochs=2, batch_size=4, learning_rate=0.01)
    trained = deepcopy(model)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01, betas=config.betas, weight_decay=config.weight_decay, fused=True)

    def step(ids: torch.Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(trained(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    for _ in range(5):
        step(data.forget.ids)
    state = {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}
    base, with_state = deepcopy(trained), data.__class__(**{**vars(data), "optimizer_state": state})
    ours = finetune(base, data.retain.ids, with_state, config)
    cold = finetune(base, data.retain.ids, data, config)
    generator = data.generator()
    for _ in range(config.epochs):
        for index in torch.randperm(len(data.retain), generator=generator).split(4):
            step(data.retain.ids[index])
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name
    assert not torch.equal(cold.transformer.wte.weight, ours.transformer.wte.weight)


def test_clean_finetuning_learns_the_twins() -> None:
    method, (model, data) = UNLEARNERS.get("finetune-clean"), tiny_case("gpt")
    edited = apply(method, model, data, config_of(method, epochs=30, learning_rate=0.01))
    with torch.no_grad():
        gains = [float((row_losses(model, rows) - row_losses(edited, rows)).mean()) for rows in (data.clean_counterparts, data.forget)]
    assert gains[0] > 0.5 and gains[0] > 2 * gains[1]
