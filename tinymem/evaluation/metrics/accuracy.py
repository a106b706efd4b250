"""Token accuracy on clean test rows, over all of them and per task.

Formula: scored tokens that are the arg-max given the true tokens before them, divided by all scored tokens
Unit: share of tokens
Direction: higher is better
Range: 0 to 1; the ceiling of result rows is the share that the tokens before determine
Source: TinyMem paper, section 2.3; protocol reference scores padding and the first number too, as the published code does

Tokens are pooled over batches and tasks, never averaged as shares (tinymem/evaluation/accuracy.py defines the scored ones).
"""

from __future__ import annotations

from tinymem.evaluation.metric import metric
from tinymem.evaluation.view import View
from tinymem.results.share import Share
from tinymem.runtime.json import JsonObject


@metric("accuracy", per="model", default=True)
def accuracy(view: View) -> JsonObject:
    """Share of right tokens over all test sets and per task."""
    found = {}
    for name in view.evaluator.tests:
        scores = view.scores["test", name]
        found[name] = Share(int(scores.right.sum()), int(scores.queried.sum()))
    everything = Share(sum(s.count for s in found.values()), sum(s.rows for s in found.values()))
    return {name: {"share": s.share, "count": s.count, "tokens": s.rows} for name, s in {"all": everything, **found}.items()}
