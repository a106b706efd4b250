"""The edit of one matrix: what is kept, against a full sort, a projection's laws, and controls of equal size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinymem.mitigation.methods.curvature._common import by_curvature
from tinymem.mitigation.methods.curvature._moments import Moments
from tinymem.mitigation.methods.curvature._spectrum import Spectrum
from tinymem.mitigation.methods.curvature.lowest_kept import _lowest
from tinymem.mitigation.methods.curvature.random_basis import orthonormal
from tinymem.mitigation.methods.curvature.svd import _truncated, rank_of

P, Q = 6, 4
RHOS = (0.3, 0.9, 0.999)
NO_DRAWS = torch.Generator()
W = torch.randn(P, Q, generator=torch.Generator().manual_seed(5))


def moment(side: int, seed: int) -> Tensor:
    x = torch.randn(40, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * torch.arange(1, side + 1)
    return x.T @ x / 40


def spectrum() -> Spectrum:
    return Spectrum.of(Moments(moment(Q, 1), moment(P, 2)))


def plain_choice(found: Spectrum, rho: float) -> set[tuple[int, int]]:
    """S(rho) by sorting all pairs and adding up their mass."""
    mass = {(i, j): float(found.l_P[i].double() * found.m_Q[j].double()) for i in range(P) for j in range(Q)}
    chosen: set[tuple[int, int]] = set()
    total = 0.0
    for pair in sorted(mass, key=lambda pair: -mass[pair]):
        if total >= rho * sum(mass.values()):
            break
        chosen.add(pair)
        total += mass[pair]
    return chosen


@pytest.mark.parametrize("rho", [0.01, *RHOS, 0.999999])
def test_the_choice_is_that_of_a_full_sort(rho: float) -> None:
    found = spectrum()
    assert {tuple(pair) for pair in found.first(found.count(rho)).nonzero().tolist()} == plain_choice(found, rho)


def test_factors_are_told_by_their_spectrum() -> None:
    found = spectrum()
    torch.testing.assert_close((found.V_QQ * found.m_Q) @ found.V_QQ.T, moment(Q, 1).float(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close((found.U_PP * found.l_P) @ found.U_PP.T, moment(P, 2).float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rho", RHOS)
def test_exactly_the_chosen_coefficients_stay_and_the_edit_is_the_frobenius_projection(rho: float) -> None:
    found = spectrum()
    kept = found.first(found.count(rho))
    before = found.coefficients(W)
    edited = by_curvature(W, found, found.count(rho), NO_DRAWS)
    after = found.coefficients(edited)
    assert 0 < found.count(rho) < P * Q and int((after.abs() > 1e-5).sum()) == found.count(rho)
    torch.testing.assert_close(after, before * kept, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((W - edited).square().sum(), (before[~kept] ** 2).sum())


def test_rho_one_and_no_curvature_keep_all() -> None:
    found = spectrum()
    assert found.count(1.0) == P * Q and torch.equal(by_curvature(W, found, P * Q, NO_DRAWS), W)
    flat = Spectrum.of(Moments(moment(Q, 1), torch.zeros(P, P, dtype=torch.float64)))
    assert flat.count(0.5) == P * Q


@pytest.mark.parametrize("rho", RHOS)
def test_rotating_the_bases_rotates_the_edit(rho: float) -> None:
    R, S = (orthonormal(side, torch.Generator().manual_seed(side)) for side in (P, Q))
    turned = Spectrum.of(Moments(S.double() @ moment(Q, 1) @ S.T.double(), R.double() @ moment(P, 2) @ R.T.double()))
    found = spectrum()
    edited = by_curvature(W, found, found.count(rho), NO_DRAWS)
    torch.testing.assert_close(by_curvature(R @ W @ S.T, turned, turned.count(rho), NO_DRAWS), R @ edited @ S.T, atol=1e-4, rtol=1e-4)


def test_the_least_curvature_is_the_rest_of_the_most() -> None:
    found = spectrum()
    count = found.count(0.9)
    assert torch.equal(found.first(P * Q - count, lowest=True), ~found.first(count))
    torch.testing.assert_close(_lowest(W, found, P * Q - count, NO_DRAWS) + by_curvature(W, found, count, NO_DRAWS), W)


def test_svd_keeps_as_many_numbers_as_it_may() -> None:
    assert [rank_of(count, P, Q) for count in (0, 8, 9, 15, 16, 23, 24)] == [0, 0, 1, 1, 2, 3 - (23 < 21), 4]
    edited = _truncated(W, spectrum(), 16, NO_DRAWS)
    assert torch.linalg.matrix_rank(edited) == 2
    torch.testing.assert_close((W - edited).square().sum(), torch.linalg.svdvals(W)[2:].square().sum())
    assert torch.equal(_truncated(W, spectrum(), P * Q, NO_DRAWS), W)


def test_random_bases_are_orthonormal() -> None:
    basis = orthonormal(P, torch.Generator().manual_seed(0))
    torch.testing.assert_close(basis.T @ basis, torch.eye(P), atol=1e-5, rtol=0)
