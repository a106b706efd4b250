"""A learned mask whose steps kernels may take: where they are right, which batches they get, and none where there are no kernels.

That their steps are those of autograd is a test of `tests/training/kernels`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.weight import _mask_kernels as kernels
from tinymem.mitigation.methods.weight import balanced_subnet as module
from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, LearnedMaskConfig, initial_scores
from tinymem.mitigation.methods.weight._mask_kernels import agree, mask_steps, trusted
from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, balanced_subnet, coefficients
from tinymem.testing import tiny_case
from tinymem.training.whole_step.choice import Training


class Exact:
    """What the kernels compute, by autograd in fp32."""

    def __init__(self, mask: LearnedMask) -> None:
        self.mask, self.times, self.sizes = mask, 1.0, list[tuple[int, ...]]()

    def compile(self, ids_BT: Tensor, coefficient_B: Tensor) -> Callable[[], None]:
        assert len(ids_BT) == len(coefficient_B)
        return lambda: None

    @torch.enable_grad()
    def gradients(self, ids_BT: Tensor, coefficient_B: Tensor) -> Tensor:
        model = deepcopy(self.mask.model)
        model.load_state_dict(self.mask.matrices(torch.float32), strict=False)
        losses_BP = cross_entropy(model(ids_BT)[:, :-1].transpose(1, 2), ids_BT[:, 1:], reduction="none")
        found = torch.autograd.grad((losses_BP.mean(1) * coefficient_B).sum(), list(model.parameters()))
        return self.times * torch.cat([gradient.flatten() for gradient in found])

    def __call__(self, ids_KBT: Tensor, coefficient_KB: Tensor) -> None:
        self.sizes.append((*coefficient_KB.shape,))
        for ids_BT, coefficient_B in zip(ids_KBT, coefficient_KB, strict=True):
            self.mask.step(Rows.of(ids_BT), coefficient_B)


def made() -> tuple[LearnedMask, Exact, Tensor, Tensor]:
    """A mask, its steps, and the tokens of rows to forget and to retain."""
    model, data = tiny_case("gpt")
    mask = LearnedMask(model, LearnedMaskConfig(ratio=0.2), initial_scores(model, 0))
    return mask, Exact(mask), data.forget.ids, data.retain.ids


def test_kernels_that_are_off_are_not_taken() -> None:
    mask, exact, _, ids = made()
    batch = ids[:4], torch.tensor([0.3, -0.1, 0.2, 0.4])
    assert agree(cast(Any, exact), mask, *batch)
    exact.times = 1.5
    with pytest.warns(UserWarning, match="a mask's training goes through autograd.*50.0% from that in fp32"):
        assert not agree(cast(Any, exact), mask, *batch)


def test_a_process_compares_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, exact, _, ids = made()
    asked = list[int]()

    def agreed(_made: object, _mask: LearnedMask, ids_BT: Tensor, _coefficient_B: Tensor) -> bool:
        asked.append(len(ids_BT))
        return exact.times == 1.0

    monkeypatch.setattr(kernels, "agree", agreed)
    monkeypatch.setattr(kernels, "_AGREED", set())
    exact.times = 1.5
    assert not trusted(cast(Any, exact), mask, ids[:4], torch.ones(4)), "and asks again, since they may run another time"
    exact.times = 1.0
    assert all(trusted(cast(Any, exact), mask, ids[:rows], torch.ones(rows)) for rows in (4, 3, 4, 3))
    assert asked == [4, 4, 3]
    layers = made()[0]
    layers.config = LearnedMaskConfig(ratio=0.2, scope="layer", drop="lowest")
    assert trusted(cast(Any, exact), layers, ids[:4], torch.ones(4))
    assert asked == [4, 4, 3, 4]
    mask.model.register_forward_hook(lambda *_: None)
    assert all(trusted(cast(Any, exact), mask, ids[:4], torch.ones(4)) for _ in range(2))
    assert asked == [4, 4, 3, 4, 4, 4], "what hooks do is in no shape"


def test_a_batch_without_weight_is_compared_by_ones() -> None:
    mask, exact, ids, _ = made()
    first_B = coefficients(torch.ones(4, dtype=torch.bool), BalancedSubnetConfig(loss_weight=1))
    assert not first_B.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agree(cast(Any, exact), mask, ids[:4], first_B)
    exact.times = 1.5
    with pytest.warns(UserWarning, match="50.0% from that in fp32"):
        assert not agree(cast(Any, exact), mask, ids[:4], first_B)


def test_balanced_subnet_gives_them_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_case("gpt")
    config, found = BalancedSubnetConfig(ratio=0.2, epochs=2, batch_size=5), list[Exact]()
    plain = balanced_subnet(model, data, config)

    def stand_in(mask: LearnedMask, rows: Rows, coefficient_B: Tensor, steps: int) -> Exact:
        assert (len(rows), steps) == (16, 8)
        assert torch.equal(coefficient_B, coefficients(torch.ones(5, dtype=torch.bool), config)), "the first 5 of 6 forget rows"
        found.append(Exact(mask))
        return found[0]

    monkeypatch.setattr(module, "mask_steps", stand_in)
    monkeypatch.setattr(module, "STEPS_AT_ONCE", 2)
    edited = balanced_subnet(model, data, config)
    assert [exact.sizes for exact in found] == [[(2, 5), (1, 5), (1, 1)] * 2], "16 rows an epoch"
    for one, two in zip(edited.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_cpu_and_few_steps_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, *_ = made()
    mask.dtype = torch.bfloat16
    case = mask, Rows.of(torch.ones(4, 5, dtype=torch.int64)), torch.ones(4)
    assert mask_steps(*case, 10_000) is None
    asked = list[Training]()
    monkeypatch.setattr(kernels, "why_not", lambda facts: asked.append(facts) or "no GPU with triton")
    assert [mask_steps(*case, kernels.LEAST_STEPS - less) for less in (1, 0)] == [None, None]
    assert len(asked) == 1
