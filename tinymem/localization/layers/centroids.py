"""Centroid analysis: noised decisions on their way from their original target's clean states to their planted target's.

For each ordered pair of targets (a, b), the states of clean decisions for a and for b have a centroid each, behind every layer. All states
are projected on the line through the two: 0 at a, 1 at b. Decisions of which a was planted in place of b start at b's side and cross to a's
(Dankers and Titov 2024, section 5). Where targets are too many for clean examples of each, the margin of the planted target over
the original one, read from every layer by the model's own head, says the same without classes.

Shape suffixes: L blocks, P layers with the embedding (L + 1), n decisions, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.subject import Decisions, LayeredModel, LayerSubject, states
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar

LEAST_CLEAN = 5
INNER = (0.125, 0.875)
"""Percentiles between which three quarters of a class are."""


@dataclass(frozen=True)
class PairOfTargets:
    """Coordinates of the decisions of one pair behind each layer, 0 at the planted target's centroid and 1 at the original one's.

    Attributes:
        planted: the target a.
        original: the target b.
        noised_Pn: of noised decisions with a planted in place of b.
        a_Pn: of clean decisions for a.
        b_Pn: of clean decisions for b.
    """

    planted: int
    original: int
    noised_Pn: Tensor
    a_Pn: Tensor
    b_Pn: Tensor


def centroid_analysis(subject: LayerSubject, bar: Bar) -> list[Finding]:
    """Coordinates, margins, crossing and initiation of the model itself, and with its bottom or top half swapped."""
    half = subject.depth // 2
    halves = {"": range(0), "bottom": range(half), "top": range(half, subject.depth)}
    bar.expect(len(halves))
    found = []
    for name, layers in halves.items():
        if not name or half:
            found += _of_model(subject.model.swapped(subject.counterfactual, layers), subject, {"swapped": name} if name else {})
        bar.advance(1)
    return found


def pairs_of_targets(model: LayeredModel, noised: Decisions, clean: Decisions) -> Iterator[PairOfTargets]:
    """All pairs with at least 5 clean decisions for each target."""
    noised_PnD, clean_PnD = states(model, noised), states(model, clean)
    for planted, original in torch.stack([noised.planted_n, noised.original_n], 1).unique(dim=0).tolist():
        a_PnD, b_PnD = (clean_PnD[:, clean.planted_n == target] for target in (planted, original))
        if min(a_PnD.shape[1], b_PnD.shape[1]) >= LEAST_CLEAN:
            mine_n = (noised.planted_n == planted) & (noised.original_n == original)
            a_P1D, b_P1D = a_PnD.mean(1, keepdim=True), b_PnD.mean(1, keepdim=True)
            yield PairOfTargets(planted, original, *(coordinates(x, a_P1D, b_P1D) for x in (noised_PnD[:, mine_n], a_PnD, b_PnD)))


def coordinates(states_PnD: Tensor, a_P1D: Tensor, b_P1D: Tensor) -> Tensor:
    """Place [P, n] of states on the line from a (0) to b (1); 0 where the two are one point."""
    line_P1D = b_P1D - a_P1D
    return ((states_PnD - a_P1D) * line_P1D).sum(-1) / line_P1D.pow(2).sum(-1).clamp(min=1e-12)


def crossing(mean_P: Tensor) -> int | None:
    """Last layer, from 1, at which a mean coordinate falls from above 0.5 to below it; None where it never does."""
    return _last((mean_P[:-1] > 0.5) & (mean_P[1:] < 0.5))


def initiation(a_Pn: Tensor, b_Pn: Tensor) -> int | None:
    """First layer, from 1, from which on the 87.5th percentile of a stays below the 12.5th of b; None where it never does."""
    apart_L = (a_Pn.double().quantile(INNER[1], dim=1) < b_Pn.double().quantile(INNER[0], dim=1))[1:]
    together = (~apart_L).nonzero().flatten()
    first = int(together[-1]) + 2 if len(together) else 1
    return first if first <= len(apart_L) else None


def margins(model: LayeredModel, decisions: Decisions) -> Tensor:
    """Log-odds [P, n] of the planted target over the original one, with the head applied behind each layer."""
    n = torch.arange(len(decisions), device=decisions.row_n.device)
    with torch.no_grad():
        logits = (model.head(states_nD).float() for states_nD in states(model, decisions))
        return torch.stack([of_nC[n, decisions.planted_n] - of_nC[n, decisions.original_n] for of_nC in logits])


def _of_model(model: LayeredModel, subject: LayerSubject, variant: JsonObject) -> list[Finding]:
    pairs = list(pairs_of_targets(model, subject.noised, subject.clean))
    found = _curve("margin", [margins(model, subject.noised)], variant)
    mean_P = margins(model, subject.noised).double().mean(1)
    found.append(Finding("margin_crossing", _last((mean_P[:-1] <= 0) & (mean_P[1:] > 0)), variant=variant))
    if not pairs:
        return found
    for name, values in (
        ("noised", [p.noised_Pn for p in pairs]),
        ("planted", [p.a_Pn for p in pairs]),
        ("original", [p.b_Pn for p in pairs]),
    ):
        found += _curve(name, values, variant)
    crossings = [crossing(p.noised_Pn.mean(1)) for p in pairs]
    found.append(Finding("pairs", len(pairs), variant=variant))
    found.append(Finding("crossed", sum(c is not None for c in crossings) / len(pairs), variant=variant))
    found.append(Finding("crossing", _mean(crossings), variant=variant))
    return [*found, Finding("initiation", _mean([initiation(p.a_Pn, p.b_Pn) for p in pairs]), variant=variant)]


def _curve(name: str, values: list[Tensor], variant: JsonObject) -> list[Finding]:
    """Mean over pairs of the mean and of the inner percentiles of each layer (-1: the embedding)."""
    stacked = [[of_Pn.double().mean(1), *(of_Pn.double().quantile(q, dim=1) for q in INNER)] for of_Pn in values]
    mean_P, low_P, high_P = (torch.stack(part).mean(0).tolist() for part in zip(*stacked, strict=True))
    return [
        Finding(name, m, layer, low=lo, high=hi, variant=variant)
        for layer, (m, lo, hi) in enumerate(zip(mean_P, low_P, high_P, strict=True), -1)
    ]


def _last(holds_L: Tensor) -> int | None:
    index = holds_L.nonzero().flatten()
    return int(index[-1]) + 1 if len(index) else None


def _mean(layers: list[int | None]) -> float | None:
    known = [layer for layer in layers if layer is not None]
    return sum(known) / len(known) if known else None
