"""Fingerprints of models: any change of a bit moves them, and each tensor's number is its own."""

from __future__ import annotations

import pytest
import torch
from helpers import random_gpt
from torch import nn

from tinymem.models.fingerprint import CHUNK, _digests, _words, fingerprint, first_change


class Odd(nn.Module):
    """Parameters and buffers of many types and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.randn(CHUNK + 5))
        self.turned = nn.Parameter(torch.randn(4, 3).T)
        self.short = nn.Parameter(torch.randn(7).half())
        for name, tensor in (
            ("pairs", torch.randn(CHUNK // 4, dtype=torch.complex64)),
            ("flags", torch.rand(9) < 0.5),
            ("empty", torch.zeros(0, dtype=torch.bool)),
            ("number", torch.tensor(3)),
        ):
            self.register_buffer(name, tensor)


@pytest.mark.parametrize("make", [random_gpt, Odd])
def test_the_number_of_a_tensor_is_its_own_whatever_it_is_grouped_with(make: type[nn.Module]) -> None:
    model = make()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = fingerprint(model)
    for name, tensor in tensors.items():
        (alone,) = _digests([_words(tensor.detach())])
        assert found[f"'{name}'"] == (tuple(tensor.shape), tensor.dtype, int(alone))


@pytest.mark.parametrize("name", ["large", "turned", "short", "pairs", "flags", "number"])
def test_a_changed_bit_is_named(name: str) -> None:
    model = Odd()
    before = fingerprint(model)
    assert first_change(before, model) is None
    with torch.no_grad():
        words = _words(getattr(model, name).detach().contiguous())
        changed = words.clone()
        changed[-1] ^= 1
        getattr(model, name).copy_(changed.view(getattr(model, name).dtype).view_as(getattr(model, name).contiguous()))
    assert first_change(before, model) == f"'{name}'"
