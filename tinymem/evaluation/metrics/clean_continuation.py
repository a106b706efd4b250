"""Clean continuation: the model goes on as the row's clean counterpart does, instead of with the artifact.

Formula: rows with arg-max p(. | c[:t]) = c[t] for all target tokens t of the clean counterpart c, divided by all scored rows
Unit: share of rows
Direction: higher is better after a mitigation: what was memorized is gone and what was learned is there
Range: 0 to 1
Source: TinyMem's published evaluator reports it for noise; TinyMem paper, Definitions 2.2 and 2.3

Artifact row and clean counterpart have the same prompt, so the pass over the artifact rows already tells which rows leave the artifact for
the counterpart at the first token in which they differ; only those need a pass of their own. None for rows that are planted as they are:
they have no clean counterpart.
"""

from __future__ import annotations

import numpy as np
import torch

from tinymem.data.rows import Rows
from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.probes import Flags
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject

COLUMN = MetricColumn(
    "clean %", ("all", "share"), scale=100, digits=1, note="Clean: rows that now continue as their clean counterpart does."
)


@metric("clean-continuation", default=True, column=COLUMN)
def clean_continuation(view: View, kind: str) -> JsonObject | None:
    """Share of rows continued cleanly, by group of the artifact's rows; None for rows without clean counterparts."""
    original = view.evaluator.originals[kind]
    if original.clean_counterparts is None or original.clean_end is None:
        return None
    counterparts = Rows(original.clean_counterparts, view.probe(kind).rows.prompt, original.clean_end)
    return view.by_group(kind, _continued(view, kind, counterparts))


def _continued(view: View, kind: str, counterparts: Rows) -> Flags:
    rows, scores = view.probe(kind).rows, view.scores["probe", kind]
    window = rows.window() & counterparts.window()
    differs = window & (rows.ids != counterparts.ids)
    so_far = differs.cumsum(1)
    elsewhere = differs & (so_far == 1) & (scores.predicted != counterparts.ids)  # at the first difference the model does not follow it
    candidates = scores.memorized(window & (so_far == 0)) & ~elsewhere.any(1)
    found = np.zeros(len(rows), dtype=bool)
    chosen = torch.nonzero(candidates).squeeze(1)
    if len(chosen):
        found[chosen.cpu().numpy()] = view.memorized_among(counterparts.take(chosen))
    return found
