"""Copies of models beside those of `copy.deepcopy`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from helpers import equal_weights, random_gpt
from torch import nn
from torch.nn.utils import parametrize

from tinymem.models.copied import copied
from tinymem.testing import tiny_case


class Halved(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


class Odd(nn.Module):
    """Tied and shared parts, hooks, buffers that are not stored, lists, a method of an object, None, and own ways to copy."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again, self.none = self.first, None
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.first.weight
        self.turned = nn.Parameter(torch.randn(4, 2).T)
        self.register_buffer("kept", torch.randn(2), persistent=False)
        self.register_module("empty", None)
        self.parts = nn.ModuleList([nn.GELU(), nn.MultiheadAttention(4, 2)])
        self.halved = nn.Linear(3, 3)
        parametrize.register_parametrization(self.halved, "weight", Halved())
        self.notes: Any = {"names": ["a"], "own": self.kept}
        self.calls, self.called = 0, self.count
        self.cache: dict[str, int] = {}
        self.first.cache = self.cache  # type: ignore[assignment]
        self.first.register_forward_hook(lambda module, inputs, output: output + 1)

    def count(self) -> None:
        self.calls += 1


def shape_of(thing: Any, seen: dict[int, int]) -> Any:
    """What an object holds, with the places at which the same object comes again."""
    if id(thing) in seen:
        return "again", seen[id(thing)]
    if isinstance(thing, nn.Module | dict | list | tuple | torch.Tensor):
        seen[id(thing)] = len(seen)
    if isinstance(thing, torch.Tensor):
        return type(thing), thing.shape, thing.stride(), thing.dtype, thing.requires_grad, thing.tolist()
    if isinstance(thing, nn.Module):
        return type(thing).__name__, shape_of(vars(thing), seen)
    if isinstance(thing, dict):
        return type(thing), [(key, shape_of(value, seen)) for key, value in thing.items()]
    if isinstance(thing, list | tuple):
        return type(thing), [shape_of(value, seen) for value in thing]
    return type(thing) if callable(thing) or type(thing).__module__ != "builtins" else thing


@pytest.mark.parametrize("make", [random_gpt, Odd, lambda: tiny_case("llama")[0], lambda: tiny_case("gpt2")[0]])
def test_as_deepcopy_makes_it(make: Any) -> None:
    model = make()
    copy = copied(model)
    assert shape_of(copy, {}) == shape_of(deepcopy(model), {}) == shape_of(model, {})
    own = {id(t) for t in [*model.parameters(), *model.buffers(), *model.modules()]}
    assert not own & {id(t) for t in [*copy.parameters(), *copy.buffers(), *copy.modules()]}
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    assert not equal_weights(model, copy)
    assert shape_of(model, {}) != shape_of(copy, {})


class Made(nn.Module):
    """A module that is made of an argument."""

    def __new__(cls, size: int) -> Made:
        return super().__new__(cls)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.line = size, nn.Linear(size, size)

    def __getnewargs__(self) -> tuple[int]:
        return (self.size,)


def test_a_class_that_is_made_of_arguments() -> None:
    model = nn.Sequential(Made(2), nn.ReLU())
    assert equal_weights(copied(model), model) and copied(model)[0].size == 2


def test_methods_and_hooks_are_of_the_copy() -> None:
    model = Odd()
    copy = copied(model)
    copy.called()
    assert (model.calls, copy.calls) == (0, 1)
    copy.first._forward_hooks.clear()
    assert len(model.first._forward_hooks) == 1
    x = torch.randn(2, 3)
    assert torch.equal(copy.tied(x), model.tied(x)) and torch.equal(copy.halved(x), model.halved(x))
    assert copy.first.cache is copy.cache is not model.cache, "one cache of both, and not the original's"
    assert copy.again is copy.first and copy.tied.weight is copy.first.weight and copy.notes["own"] is copy.kept
