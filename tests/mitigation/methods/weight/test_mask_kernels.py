"""A learned mask whose gradients come from kernels: the same mask as by autograd, and none where the kernels are off."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.weight._learned_mask import Drop, LearnedMask, LearnedMaskConfig, initial_scores
from tinymem.mitigation.methods.weight._mask_kernels import MaskGradients, agree, mask_gradients
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, balanced_subnet, coefficients
from tinymem.models.gpt2 import GPT
from tinymem.testing import tiny_case


class Exact:
    """What the kernels compute, by autograd in fp32: the gradient of the tokens' losses times their shares, under given weights."""

    def __init__(self, model: GPT, weights: Tensor) -> None:
        self.model, self.weights, self.flat, self.times = deepcopy(model), weights, torch.zeros_like(weights), 1.0
        self.calls = 0

    def compile(self, ids_BT: Tensor) -> None:
        assert ids_BT.dim() == 2

    @torch.enable_grad()
    def __call__(self, ids_BT: Tensor, shares_BT: Tensor) -> None:
        self.calls += 1
        vector_to_parameters(self.weights, self.model.parameters())
        losses_BP = cross_entropy(self.model(ids_BT)[:, :-1].transpose(1, 2), ids_BT[:, 1:], reduction="none")
        found = torch.autograd.grad((losses_BP * shares_BT[:, :-1]).sum(), list(self.model.parameters()))
        self.flat.copy_(self.times * torch.cat([gradient.flatten() for gradient in found]))


def by_kernels(model: GPT) -> tuple[MaskGradients, Exact]:
    flat = parameters_to_vector(model.parameters()).detach()
    exact = Exact(model, flat)
    return MaskGradients(cast(Any, exact), model, flat), exact


@pytest.mark.parametrize("drop", ["highest", "lowest"])
def test_the_mask_is_that_of_autograd(drop: Drop) -> None:
    model, data = tiny_case("gpt")
    assert isinstance(model, GPT)
    before = parameters_to_vector(model.parameters()).clone()
    config, scores = LearnedMaskConfig(ratio=0.2, drop=drop), initial_scores(model, 0)
    plain, kernels = (LearnedMask(model, config, scores) for _ in range(2))
    kernels.by_kernels = by_kernels(model)[0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        index_B, coefficient_B = torch.randperm(len(data.retain), generator=generator)[:5], torch.randn(5, generator=generator)
        for mask in (plain, kernels):
            mask.step(data.retain, coefficient_B, index_B)
    assert not torch.equal(plain.scores_P, torch.cat([s.flatten() for s in scores.values()]))
    torch.testing.assert_close(kernels.scores_P, plain.scores_P, atol=1e-6, rtol=1e-5)
    assert torch.equal(parameters_to_vector(model.parameters()), before)


def test_kernels_that_are_off_are_not_taken() -> None:
    model, data = tiny_case("gpt")
    assert isinstance(model, GPT)
    made, exact = by_kernels(model)
    batch = data.retain.ids[:4], torch.tensor([0.3, -0.1, 0.2, 0.4])
    assert agree(made, model, *batch)
    exact.times = 1.5
    with pytest.warns(UserWarning, match="a mask's training goes through autograd.*50.0% from that in fp32"):
        assert not agree(made, model, *batch)


def test_a_batch_without_weight_is_compared_by_ones() -> None:
    model, data = tiny_case("gpt")
    assert isinstance(model, GPT)
    made, exact = by_kernels(model)
    first_B = coefficients(torch.ones(4, dtype=torch.bool), BalancedSubnetConfig(loss_weight=1))
    assert not first_B.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree(made, model, data.forget.ids[:4], first_B)
    exact.times = 1.5
    with pytest.warns(UserWarning, match="50.0% from that in fp32"):
        assert not agree(made, model, data.forget.ids[:4], first_B)


def test_balanced_subnet_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_case("gpt")
    config, found = BalancedSubnetConfig(ratio=0.2, epochs=2, batch_size=5), list[Exact]()
    plain = balanced_subnet(model, data, config)

    def stand_in(model: GPT, dtype: torch.dtype, rows: Rows, coefficient_B: Tensor, steps: int) -> MaskGradients:
        assert (dtype, len(rows), steps) == (torch.float32, 16, 8)
        assert torch.equal(coefficient_B, coefficients(torch.ones(5, dtype=torch.bool), config)), "the first 5 of 6 forget rows"
        made, exact = by_kernels(model)
        found.append(exact)
        return made

    monkeypatch.setattr(f"{balanced_subnet.__module__}.mask_gradients", stand_in)
    edited = balanced_subnet(model, data, config)
    assert [exact.calls for exact in found] == [8]
    for one, two in zip(edited.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_cpu_has_no_kernels() -> None:
    model, data = tiny_case("gpt")
    assert mask_gradients(model, torch.bfloat16, data.retain, torch.ones(4), 10_000) is None
