"""Spectra: the eigenbases of a projection's curvature, and the edits that keep a part of a matrix in them.

G = U diag(l) U^T, A = V diag(m) V^T; in these bases W has the coefficients C = U^T W V, and the pair (i, j) has the curvature mass l_i m_j.
S(rho) is the smallest set of pairs, by descending mass, that holds the share rho of all mass; of equal masses the earlier pair comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tinymem.mitigation.methods.curvature._moments import Moments

EXACT = 4096
"""Largest side of a matrix whose eigenvectors are computed in fp64."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors U [P, P] and V [Q, Q], in columns, and eigenvalues l [P] and m [Q], ascending and at least 0, in fp32."""

    U_PP: Tensor
    l_P: Tensor
    V_QQ: Tensor
    m_Q: Tensor

    @staticmethod
    def of(found: Moments) -> Spectrum:
        """The spectrum of second moments, rounded to fp32, as it is stored."""
        (l_P, U_PP), (m_Q, V_QQ) = eigen(found.G_PP), eigen(found.A_QQ)
        return Spectrum(U_PP, l_P, V_QQ, m_Q)

    @property
    def mass_PQ(self) -> Tensor:
        """Curvature mass [P, Q] of each pair of eigenvectors, in fp64."""
        return torch.outer(self.l_P.double(), self.m_Q.double())

    @cached_property
    def order_N(self) -> Tensor:
        """Places of the pairs in the flattened mass [P * Q], by descending mass."""
        return self.mass_PQ.flatten().sort(descending=True, stable=True).indices

    @cached_property
    def cumulated_N(self) -> Tensor:
        """Cumulated mass [P * Q] in that order."""
        return self.mass_PQ.flatten()[self.order_N].cumsum(0)

    def count(self, rho: float) -> int:
        """Number of pairs in S(rho); all at rho 1 by rule, and where there is no curvature, of which nothing can be said."""
        total = self.cumulated_N[-1]
        if rho >= 1 or not total > 0:
            return len(self.order_N)
        return min(int(torch.searchsorted(self.cumulated_N, rho * total)) + 1, len(self.order_N))

    def first(self, count: int, *, lowest: bool = False) -> Tensor:
        """Mask [P, Q] of so many pairs with the most mass, or with the least."""
        mask_N = torch.zeros(len(self.order_N), dtype=torch.bool, device=self.order_N.device)
        mask_N[self.order_N[len(self.order_N) - count :] if lowest else self.order_N[:count]] = True
        return mask_N.view(len(self.l_P), len(self.m_Q))

    def coefficients(self, W_PQ: Tensor) -> Tensor:
        """C [P, Q] of a matrix in the eigenbases."""
        return self.U_PP.T @ W_PQ.to(self.U_PP) @ self.V_QQ


def eigen(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [N], ascending and at least 0, and eigenvectors [N, N] in columns, of a moment [N, N]; in fp32."""
    values, vectors = torch.linalg.eigh(moment if len(moment) <= EXACT else moment.float())
    return values.clamp(min=0).float(), vectors.float()


def keep(W_PQ: Tensor, U_PP: Tensor, V_QQ: Tensor, kept_PQ: Tensor) -> Tensor:
    """The matrix with only the kept coefficients in two orthonormal bases, in fp64 for small ones: W less the dropped part.

    Subtracting the dropped part, and not building up the kept one, returns W exactly where nothing is dropped.
    """
    if bool(kept_PQ.all()):
        return W_PQ
    dtype = torch.float64 if max(W_PQ.shape) <= EXACT else torch.float32
    U, V, W = U_PP.to(dtype), V_QQ.to(dtype), W_PQ.to(dtype)
    dropped_PQ = (U.T @ W @ V).masked_fill(kept_PQ, 0)
    return (W - U @ dropped_PQ @ V.T).to(W_PQ.dtype)
