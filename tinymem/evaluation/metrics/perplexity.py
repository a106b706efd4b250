"""Perplexity on clean test rows, weighted by tokens.

Formula: exp(sum of -ln p(token | tokens before) over all scored tokens / number of them), summed in float64
Unit: none (tokens that the model is undecided between)
Direction: lower is better
Range: 1 and up; None where it overflows
Source: any textbook; `perplexity-of-batches` is what the published code reports instead
"""

from __future__ import annotations

from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.perplexity import perplexity as of_sum
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject


@metric("perplexity", per="model", default=True, column=MetricColumn("perplexity", ("all",), digits=2))
def perplexity(view: View) -> JsonObject:
    """Perplexity over all test sets, and of each."""
    sums = {}
    for name in view.evaluator.tests:
        scores = view.scores["test", name]
        sums[name] = float(scores.loss.double().sum()), int(scores.queried.sum())
    everything = sum(loss for loss, _ in sums.values()), sum(tokens for _, tokens in sums.values())
    return {name: of_sum(*of) for name, of in {"all": everything, **sums}.items()}
