"""SVD: a control of the curvature edit, which keeps the largest singular values of each matrix, as many as the edit has numbers.

Formula: the best approximation of W [P, Q] of rank r, the largest with r (P + Q - r) <= |S|, the numbers that a matrix of that rank has.
Source: Merullo et al. 2025 (arXiv 2510.24256), as a baseline; equal numbers are ours.
Cost: as of kfac, whose |S| it takes, and a singular value decomposition of each matrix.
Options: rho, budget (the rho that kfac finds), layers, matrices, rows, labels, sample, judged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.curvature._common import CurvatureConfig, curvature_edit
from tinymem.mitigation.methods.curvature._spectrum import Spectrum

PROPERTIES = Properties(unit="weight", order="zeroth", layer_wise=True)


@editor("svd", config=CurvatureConfig, properties=PROPERTIES, needs_forget=False, by_name=True)
def svd(model: nn.Module, data: MitigationData, config: CurvatureConfig) -> nn.Module:
    """The copy whose matrices have a lower rank."""
    return curvature_edit(model, data, config, _truncated)


def _truncated(W_PQ: Tensor, _spectrum: Spectrum, count: int, _generator: torch.Generator) -> Tensor:
    rank = rank_of(count, *W_PQ.shape)
    if rank == min(W_PQ.shape):
        return W_PQ
    U, values, Vh = torch.linalg.svd(W_PQ.float(), full_matrices=False)
    return ((U[:, :rank] * values[:rank]) @ Vh[:rank]).to(W_PQ.dtype)


def rank_of(count: int, P: int, Q: int) -> int:
    """The largest rank r whose matrices [P, Q] have at most `count` degrees of freedom, r (P + Q - r)."""
    return max((r for r in range(min(P, Q) + 1) if r * (P + Q - r) <= count), default=0)
