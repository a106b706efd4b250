"""The K most extreme entries of each row of a matrix, ties to the earlier: the weights that a learned mask drops at each step.

A full sort would find an order that nothing needs. Only the K-th value is looked for: by quickselect on a CPU, by counting digits on a
GPU (`_selection_kernel`, all rows at once), by `torch.kthvalue` where neither can run.

Shape suffixes: G groups, each ranked apart, N entries of a group.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tinymem.runtime.device import triton_there


def without_extreme(weights_GN: Tensor, scores_GN: Tensor, count: int, *, lowest: bool, dtype: torch.dtype) -> Tensor:
    """The weights [G, N] in `dtype`, with 0 in place of the `count` of each row whose |score| is highest (or lowest)."""
    if use_kernel(scores_GN) and 0 < count < scores_GN.shape[1]:
        from tinymem.mitigation.methods.weight._selection_kernel import masked

        return masked(weights_GN, scores_GN, count, lowest=lowest, dtype=dtype)
    return weights_GN.masked_fill(extreme(scores_GN, count, lowest=lowest), 0).to(dtype)


def extreme(scores_GN: Tensor, count: int, *, lowest: bool) -> Tensor:
    """Mask [G, N] of the `count` entries of each row with the highest (or lowest) |score|."""
    values_GN, N = scores_GN.detach().abs(), scores_GN.shape[1]
    if lowest:
        values_GN = -values_GN
    if count in (0, N):
        return torch.full_like(values_GN, bool(count), dtype=torch.bool)
    threshold_G1 = _kth_highest(values_GN, count)
    above_GN, equal_GN = values_GN > threshold_G1, values_GN == threshold_G1
    left_G1 = count - above_GN.sum(1, keepdim=True)
    return above_GN | (equal_GN & (equal_GN.cumsum(1) <= left_G1))


def _kth_highest(values_GN: Tensor, count: int) -> Tensor:
    place = values_GN.shape[1] - count
    if values_GN.device.type == "cpu" and values_GN.dtype == torch.float32:
        return torch.from_numpy(np.partition(values_GN.numpy(), place, axis=1)[:, place, None])
    return values_GN.kthvalue(place + 1, dim=1, keepdim=True).values


def use_kernel(scores_GN: Tensor) -> bool:
    """True where the kernel can run: fp32 scores on a GPU, and triton installed."""
    return scores_GN.is_cuda and scores_GN.dtype == torch.float32 and triton_there()
