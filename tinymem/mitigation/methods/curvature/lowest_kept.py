"""Lowest kept: a control of the curvature edit, which keeps as many coefficients, those of least curvature.

Formula: as of kfac, with S the |S| pairs of the smallest l_i m_j.
Source: Merullo et al. 2025 (arXiv 2510.24256), as a control; not part of the TinyMem paper.
Cost: as of kfac.
Options: rho, budget (the rho that kfac finds), layers, matrices, rows, labels, sample, judged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.curvature._common import CurvatureConfig, curvature_edit
from tinymem.mitigation.methods.curvature._spectrum import Spectrum, keep

PROPERTIES = Properties(unit="weight", order="second", layer_wise=True)


@editor("lowest-kept", config=CurvatureConfig, properties=PROPERTIES, needs_forget=False, by_name=True)
def lowest_kept(model: nn.Module, data: MitigationData, config: CurvatureConfig) -> nn.Module:
    """The copy whose matrices keep the coefficients of least curvature."""
    return curvature_edit(model, data, config, _lowest)


def _lowest(W_PQ: Tensor, spectrum: Spectrum, count: int, _generator: torch.Generator) -> Tensor:
    return keep(W_PQ, spectrum.U_PP, spectrum.V_QQ, spectrum.first(count, lowest=True))
