"""Exposure of canaries: how far the model prefers a planted secret to all others.

Formula: log2(number of possible secrets) - log2(rank of the planted one by the model's loss), mean over canaries
Unit: bits
Direction: lower is better after a mitigation; about 1.4 is chance
Range: 0 to log2 of the number of ranked secrets (`largest`), where the secret is the likeliest of all
Source: Carlini et al. 2019, "The Secret Sharer", section 4 (tinymem/evaluation/exposure.py)

Only for the artifact `canary`; `canaries` has one number for each.
"""

from __future__ import annotations

import numpy as np

from tinymem.evaluation.exposure import exposure_of_rank, exposures
from tinymem.evaluation.metric import metric
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject


@metric("exposure")
def exposure(view: View, kind: str) -> JsonObject | None:
    """Exposure of the canaries in bits; None for other artifacts."""
    corpus = view.evaluator.corpus
    if kind != "canary" or corpus is None:
        return None
    found = exposures(view.model, corpus, seed=corpus.spec.seed)
    bits = [e.exposure for e in found]
    summary = view.by_group(kind, bits, np.arange(len(bits)))
    return {**summary, "largest": max(exposure_of_rank(1, e.ranked) for e in found), "canaries": [*bits]}
