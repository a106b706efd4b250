"""Fingerprints of models in memory: whether anything of a model has changed since, values, names and hooks."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from tinymem.runtime.device import in_one_transfer
from tinymem.runtime.segments import grouped, segment_sums

CHUNK = 1 << 20
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Fingerprint = dict[str, tuple[object, ...]]
"""Per tensor its shape, type and a number that any change of a bit moves; per module with hooks their number."""


def fingerprint(model: nn.Module) -> Fingerprint:
    """The fingerprint of a model, from one pass over its memory on its own device."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    parts = [t.detach() for t in tensors.values()]
    groups = grouped(parts, CHUNK // 2)  # a complex number is two words
    digests = in_one_transfer([digest for group in groups for digest in _digests([_words(parts[i]) for i in group])])
    found: Fingerprint = {
        f"'{name}'": (tuple(t.shape), t.dtype, digest) for (name, t), digest in zip(tensors.items(), digests, strict=True)
    }
    return found | hooks_of(model)


def hooks_of(model: nn.Module) -> Fingerprint:
    """The numbers of hooks of each module that has any."""
    hooks = {f"hooks of '{name}'": tuple(len(getattr(module, kind)) for kind in HOOKS) for name, module in model.named_modules()}
    return {name: counts for name, counts in hooks.items() if any(counts)}


def first_change(before: Fingerprint, model: nn.Module) -> str | None:
    """What of a model differs first from its fingerprint of before; None if nothing does."""
    now = fingerprint(model)
    return next((name for name in {**before, **now} if before.get(name) != now.get(name)), None)


def _words(tensor: Tensor) -> Tensor:
    """A tensor's memory as integers."""
    flat = torch.view_as_real(tensor).flatten() if tensor.is_complex() else tensor.flatten()
    return flat.view(INTEGERS[flat.element_size()])


def _digests(group: list[Tensor]) -> list[Tensor]:
    """For each tensor the sum of its words, each times a number of its place, modulo 2^64."""
    factors = _factors(group[0].device)
    if len(group) > 1:
        words, numbers = torch.cat(group), torch.cat([factors[: len(part)] for part in group])
        return [*segment_sums(words.to(torch.int64) * numbers, [len(part) for part in group])]
    total = torch.zeros((), dtype=torch.int64, device=factors.device)
    for words in group[0].split(CHUNK):
        total = total * 31 + (words.to(torch.int64) * factors[: len(words)]).sum()
    return [total]


@cache
def _factors(device: torch.device) -> Tensor:
    """Odd random numbers, which lose no bit when they multiply."""
    return (torch.randint(-(2**62), 2**62, (CHUNK,), generator=torch.Generator().manual_seed(0)) * 2 + 1).to(device)
