"""Detectors of memorized rows that need no list of them: a row's own curvature, and how strongly it drives each band of the spectrum.

Curvature of a row: tr(F_row) = E over labels drawn from the model of |gradient of the row's loss|^2, over chosen matrices.
Band of the spectrum: the pairs of eigenvectors between two values of rho (`methods/curvature/_spectrum.py`). A row's activation of a band
is the mean over its positions of |(C * 1_band) V^T a|, a matrix's input a as the band alone would answer it, over the mean of clean rows,
and the mean of that over matrices. Source: Merullo et al. 2025 (arXiv 2510.24256), section 4, for the activations.

Shape suffixes: N rows, B rows of a batch, T tokens, P outputs, Q inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.curvature._moments import Flow, batch_rows, counted, gradients, objectives_of, passed
from tinymem.mitigation.methods.curvature._projections import Projection, projections
from tinymem.mitigation.methods.curvature._spectrum import Spectrum
from tinymem.mitigation.methods.curvature._store import Spectra, spectra

EDGES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)
"""Values of rho between bands."""
DRAWS = 2


def row_curvature(model: nn.Module, rows: Rows, found: Sequence[Projection], *, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """tr(F_row) [N] of each row, over some projections.

    Args:
        model: which is left as it is.
        rows: on the model's device.
        found: the projections.
        draws: of labels, over which the mean is taken.
        seed: of the labels.
    """
    generator, traces = torch.Generator().manual_seed(seed), []
    for piece in rows.batches(batch_rows(model, rows)):
        total_B = torch.zeros(len(piece), dtype=torch.float64, device=rows.ids.device)
        for _ in range(draws):
            [flows] = gradients(model, piece, found, objectives_of("sampled", generator))
            total_B += sum(squared_norms(flow) for flow in flows)
        traces.append(total_B / draws)
    return torch.cat(traces) if traces else torch.zeros(0, dtype=torch.float64)


def squared_norms(flow: Flow) -> Tensor:
    """|sum over positions of g a^T|^2 [B] of each row, by the inner products of its positions: no matrix [P, Q] is made."""
    g, a = flow.gradients_BTP, flow.inputs_BTQ
    return ((g @ g.mT) * (a @ a.mT)).double().sum((1, 2))


def bands(spectrum: Spectrum) -> list[Tensor]:
    """Masks [P, Q] of the pairs between each two neighboring edges; together they are all pairs."""
    masks = [spectrum.first(spectrum.count(rho) if rho else 0) for rho in EDGES]
    return [upper & ~lower for lower, upper in pairwise(masks)]


@torch.no_grad()
def band_activations(model: nn.Module, rows: Rows, found: Sequence[Projection], made: Spectra) -> Tensor:
    """Mean |(C * 1_band) V^T a| [projections, bands, N] over each row's positions."""
    parts = [_parts(projection, made[projection.name]) for projection in found]
    pieces = []
    for piece in rows.batches(batch_rows(model, rows)):
        valid_BT = counted(piece)
        inputs = passed(model, piece, found)
        norms = [torch.stack([_mean_norm(a, part, valid_BT) for part in of]) for a, of in zip(inputs, parts, strict=True)]
        pieces.append(torch.stack(norms))
    return torch.cat(pieces, dim=2) if pieces else torch.zeros(len(found), len(EDGES) - 1, 0, device=rows.ids.device)


def _parts(projection: Projection, spectrum: Spectrum) -> list[Tensor]:
    """(C * 1_band) V^T [P, Q] of each band: the matrix's part in it, but for a rotation of the outputs."""
    coefficients = spectrum.coefficients(projection.weight_PQ())
    return [(coefficients * band) @ spectrum.V_QQ.T for band in bands(spectrum)]


def _mean_norm(inputs_BTQ: Tensor, part_PQ: Tensor, valid_BT: Tensor) -> Tensor:
    norms_BT = (inputs_BTQ @ part_PQ.T).norm(dim=-1)
    return (norms_BT * valid_BT).sum(1) / valid_BT.sum(1).clamp(min=1)


def relative(activations: Tensor, clean: Tensor) -> Tensor:
    """Activation [bands, N] of each row over the mean of clean rows, mean over the projections that clean rows drive at all."""
    mean = clean.mean(2, keepdim=True)
    return torch.where(mean > 0, activations / mean.clamp(min=1e-30), torch.nan).nanmean(0)


def scores(model: nn.Module, groups: Sequence[Rows], clean: Rows, *, sample: int = 10_000, seed: int = 0) -> list[Tensor]:
    """Scores [1 + bands, N] of each group's rows, feed-forward matrices: tr(F_row), and the relative activation of each band.

    Args:
        model: which is left as it is.
        groups: rows to score; the first is of clean rows, whose mean activations are the unit.
        clean: other clean rows, which the spectrum is measured on.
        sample: at most so many of them.
        seed: of labels.
    """
    found = projections(model)
    measured = clean.take(torch.arange(min(sample, len(clean)), device=clean.ids.device))
    with spectra(model, measured, found, "sampled", seed) as made:
        driven = [band_activations(model, rows, found, made) for rows in groups]
    traces = [row_curvature(model, rows, found, seed=seed).to(driven[0]) for rows in groups]
    return [torch.cat([t[None], relative(a, driven[0])]) for t, a in zip(traces, driven, strict=True)]
