"""The published code's perplexity: the mean over batches of each batch's perplexity.

Formula: mean over batches of 128 rows of exp(mean loss of the batch's scored tokens); `all` is the mean over the test sets
Unit: none (tokens that the model is undecided between)
Direction: lower is better
Range: 1 and up, and at least the token-weighted perplexity of equal batches; None where it overflows
Source: TinyMem's published evaluator (its training batch size), for comparison with its numbers only

It depends on how the rows are cut, and the last, smaller batch weighs as much as the others: use `perplexity` for anything else. Batches
are cut here as the published code cuts them, whatever `evaluation.batch_size` is. Scored tokens are those of the protocol.
"""

from __future__ import annotations

from tinymem.evaluation.forward import TokenScores
from tinymem.evaluation.metric import metric
from tinymem.evaluation.perplexity import perplexity
from tinymem.evaluation.view import View
from tinymem.runtime.json import JsonObject

BATCH_ROWS = 128


@metric("perplexity-of-batches", per="model", default=True)
def perplexity_of_batches(view: View) -> JsonObject:
    """Perplexity of batches, as the mean over the test sets and of each."""
    found = {name: _mean([*_batches(view.scores["test", name])]) for name in view.evaluator.tests}
    return {"all": _mean([*found.values()]), **found}


def _batches(scores: TokenScores) -> list[float | None]:
    sums, tokens = scores.loss.double().sum(1).split(BATCH_ROWS), scores.queried.sum(1).split(BATCH_ROWS)
    return [perplexity(float(s.sum()), int(t.sum())) for s, t in zip(sums, tokens, strict=True)]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
