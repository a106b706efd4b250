"""Random numbers for feed-forward parameters, alike whichever class holds the model, on every device and with any number of threads."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.models.adapters import in_out


def uniform(model: nn.Module, names: Collection[str], seed: int) -> dict[str, Tensor]:
    """Draws from [0, 1) in fp32 by name, of the shape and on the device of each parameter.

    A stream of its own for each (seed, name) fills the parameter in its published layout; several are drawn at once.
    """

    def draw(name: str) -> Tensor:
        parameter = model.get_parameter(name)
        stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn = torch.empty(in_out(model, parameter).shape, pin_memory=parameter.is_cuda)  # pinned: many times faster to copy
        stream.random(out=drawn.numpy(), dtype=np.float32)
        return in_out(model, drawn.to(parameter.device))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(names, pool.map(draw, names), strict=True))
