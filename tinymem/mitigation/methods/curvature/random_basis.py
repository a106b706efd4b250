"""Random basis: a control of the curvature edit, which keeps as many coefficients, at the same places of random orthonormal bases.

Formula: as of kfac, with U and V drawn uniformly among orthonormal bases (QR of Gaussian matrices, columns signed by R's diagonal).
Source: Merullo et al. 2025 (arXiv 2510.24256) for the edit; the control is ours.
Cost: as of kfac, and a QR of the size of each factor.
Options: rho, budget (the rho that kfac finds), layers, matrices, rows, labels, sample, judged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.curvature._common import CurvatureConfig, curvature_edit
from tinymem.mitigation.methods.curvature._spectrum import Spectrum, keep

PROPERTIES = Properties(unit="weight", order="second", layer_wise=True)


@editor("random-basis", config=CurvatureConfig, properties=PROPERTIES, needs_forget=False, by_name=True)
def random_basis(model: nn.Module, data: MitigationData, config: CurvatureConfig) -> nn.Module:
    """The copy whose matrices keep coefficients of random bases."""
    return curvature_edit(model, data, config, _random)


def _random(W_PQ: Tensor, spectrum: Spectrum, count: int, generator: torch.Generator) -> Tensor:
    U_PP, V_QQ = (orthonormal(side, generator).to(W_PQ.device) for side in W_PQ.shape)
    return keep(W_PQ, U_PP, V_QQ, spectrum.first(count))


def orthonormal(side: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal basis [side, side], in columns, drawn on the CPU for every device."""
    Q, R = torch.linalg.qr(torch.randn(side, side, generator=generator))
    return Q * R.diagonal().sign()
