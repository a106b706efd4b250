"""Random numbers for feed-forward parameters, alike whichever class holds the model, on every device and with any number of threads."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.models.adapters import in_out

MOST_KEPT = 1 << 24
"""Most draws that are kept."""
_last: dict[Hashable, dict[str, Tensor]] = {}
"""The last draws of a small model, by all that decides them."""


def uniform(model: nn.Module, names: Collection[str], seed: int) -> dict[str, Tensor]:
    """Draws from [0, 1) in fp32 by name, of the shape and on the device of each parameter.

    A stream of its own for each (seed, name) fills the parameter in its published layout; several are drawn at once. Those of a small
    model are kept, since the runs of a sweep begin with the same.
    """
    parameters = {name: model.get_parameter(name) for name in names}
    key = seed, tuple((name, p.shape, in_out(model, p).stride(), p.device) for name, p in parameters.items())
    if key not in _last:
        drawn = _drawn(model, parameters, seed)
        if sum(p.numel() for p in parameters.values()) > MOST_KEPT:
            return drawn
        _last.clear()
        _last[key] = drawn
    return {name: values.clone() for name, values in _last[key].items()}


def _drawn(model: nn.Module, parameters: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    def draw(name: str) -> Tensor:
        parameter = parameters[name]
        stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn = torch.empty(in_out(model, parameter).shape, pin_memory=parameter.is_cuda)  # pinned: many times faster to copy
        stream.random(out=drawn.numpy(), dtype=np.float32)
        return in_out(model, drawn.to(parameter.device))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(parameters, pool.map(draw, parameters), strict=True))
