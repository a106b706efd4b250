"""Normalized edit distance between what greedy decoding writes and the target.

Formula: Levenshtein distance of the token sequences / length of the longer one (mean over rows)
Unit: share of tokens to insert, delete or replace
Direction: higher is better after a mitigation: near-verbatim copies count, which exact match does not see
Range: 0 (word for word) to 1
Source: Levenshtein 1966; near-verbatim memorization as in Ippolito et al. 2023

Decoding starts at the first token that teacher forcing found wrong, since before it both agree. Needs rapidfuzz (the extra `text`).
"""

from __future__ import annotations

from tinymem.evaluation.decoding import continuations
from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject

COLUMN = MetricColumn("edit distance", ("all", "mean"), note="Edit distance: 0 is the artifact word for word.")


@metric("edit-distance", requires=("rapidfuzz", "text"), column=COLUMN)
def edit_distance(view: View, kind: str) -> JsonObject:
    """Mean edit distance to the target, by group."""
    from rapidfuzz.distance import Levenshtein

    rows = view.probe(kind).rows
    written, ids = continuations(view, kind).tolist(), rows.ids.tolist()
    windows = zip(rows.prompt.tolist(), rows.end.tolist(), strict=True)
    distances = [
        Levenshtein.normalized_distance(decoded[start:end], target[start:end])
        for decoded, target, (start, end) in zip(written, ids, windows, strict=True)
    ]
    return view.by_group(kind, [float(d) for d in distances])
