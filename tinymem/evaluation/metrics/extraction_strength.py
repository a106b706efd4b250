"""Extraction strength: how little of a row must be given for the rest to follow by greedy decoding.

Formula: 1 - k*/T, k* = tokens up to the last one that is not the arg-max given the true tokens before it, T = tokens to predict
Unit: share of the row (mean over rows)
Direction: lower is better after a mitigation
Range: 0 (not even the last token follows) to 1 (the first token is enough)
Source: Carlini et al. 2021; open-unlearning's `extraction_strength`

Of the rows as they stood in training, noise in the prompt included, padding left out; T does not count the first token, before which there
is nothing. open-unlearning gives 1/T instead of 0 where the last token is wrong, which is an off-by-one of its loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.evaluation.forward import Key, TokenQuery, TokenScores
from tinymem.evaluation.inputs import EvaluationInputs
from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject

COLUMN = MetricColumn(
    "extraction strength",
    ("all", "mean"),
    note="Extraction strength: 1 less the smallest share of a row from which the rest follows.",
)


def _rows(evaluator: EvaluationInputs) -> dict[Key, TokenQuery]:
    return {("planted", kind): original.query() for kind, original in evaluator.originals.items()}


@metric("extraction-strength", default=True, rows=_rows, column=COLUMN)
def extraction_strength(view: View, kind: str) -> JsonObject:
    """Mean extraction strength of the rows, by group."""
    strength = strengths(view.scores["planted", kind])
    return view.by_group(kind, strength.cpu().numpy())


def strengths(scores: TokenScores) -> Tensor:
    """Extraction strength of each row [N] whose queried tokens are 1 to its last; NaN for a row of one token."""
    position = torch.arange(scores.ids.shape[1], device=scores.ids.device)
    last_wrong_N = ((scores.queried & ~scores.right) * position).amax(1)
    return 1 - last_wrong_N.double() / scores.queried.sum(1)
