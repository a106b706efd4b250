"""Curvature edit (K-FAC): keep the weight coefficients that clean rows need together, drop those that matter to few, without a forget set.

Idea: what many rows share bends the loss of all of them, what was memorized bends that of one. In the eigenbases of a matrix's Kronecker
    factors the coefficients of little curvature are dropped, whatever they hold.
Formula: A = E[a a^T], G = E[g g^T] over clean rows (labels sampled from the model); G = U diag(l) U^T, A = V diag(m) V^T; C = U^T W V;
    S: the fewest pairs, by descending l_i m_j, that hold rho of sum l * sum m; W' = U (C * 1_S) V^T. Biases stay.
Source: Merullo et al. 2025 (arXiv 2510.24256); not part of the TinyMem paper. Theirs: two matrices of three layers, chosen by a sweep over
    memorized rows. Here: all feed-forward matrices, and a budget may choose rho: the largest edit such that it and all smaller ones cost
    at most so much on clean rows kept for that.
Cost: a forward and backward pass over `sample` rows and an eigendecomposition of each factor, stored and used again by every rho; with a
    budget up to 24 forward passes over `judged` rows.
Options: rho, budget (points of accuracy or per cent of perplexity; rho is then found), layers, matrices, rows (clean, training, or a
    file of token ids), labels, sample, judged.
"""

from __future__ import annotations

from torch import nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.curvature._common import KfacConfig, by_curvature, curvature_edit


@editor("kfac", config=KfacConfig, properties=Properties(unit="weight", order="second", layer_wise=True), needs_forget=False, by_name=True)
def kfac(model: nn.Module, data: MitigationData, config: KfacConfig) -> nn.Module:
    """The copy whose matrices keep the coefficients of most curvature."""
    return curvature_edit(model, data, config, by_curvature)
