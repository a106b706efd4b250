"""(n, p)-discoverable extraction: n sampled continuations hold the target with probability p or more.

Formula: q = product over target tokens of their probability under the sampling scheme; a row counts where 1 - (1 - q)^n >= p
Unit: share of rows; `probability` is the mean of q
Direction: lower is better after a mitigation
Range: 0 to 1
Source: Hayes et al. 2024, "Measuring memorization through probabilistic extraction"

Sampling at temperature 1 from the 40 likeliest tokens, renormalized (the paper's main setting; a vocabulary of fewer is sampled whole). One
teacher-forced pass gives q exactly, and with it every n and p: greedy decoding misses rows that a user would meet after a few tries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.view import View
from tinymem.models.adapters import logits_at
from tinymem.runtime.json import JsonObject

TOP_K = 40
SETTINGS = ((1, 0.5), (100, 0.5), (100, 0.9), (10_000, 0.5))  # n samples, probability p

NOTE = "n, p: rows that n samples produce with probability p."
COLUMNS = (
    MetricColumn("n=1, p=0.5 %", ("n=1, p=0.5", "all", "share"), scale=100, digits=1, note=NOTE),
    MetricColumn("n=100, p=0.5 %", ("n=100, p=0.5", "all", "share"), scale=100, digits=1),
)


@metric("discoverable", default=True, column=COLUMNS)
def discoverable(view: View, kind: str) -> JsonObject:
    """Share of (n, p)-discoverable rows, by (n, p) and group."""
    rows, vocabulary = view.probe(kind).rows, view.evaluator.vocab_size
    if vocabulary is not None and vocabulary <= TOP_K:  # nothing is cut off: the loss gives the probability
        log_q = -view.scores["probe", kind].loss.double().sum(1)
    else:
        log_q = sampled_log_probability(view.model, rows, top_k=TOP_K, batch_size=view.evaluator.batch_size)
    q = np.exp(log_q.cpu().numpy())
    found: JsonObject = {"probability": view.by_group(kind, q)}
    return found | {f"n={n}, p={p}": view.by_group(kind, extracted(q, n) >= p) for n, p in SETTINGS}


def extracted(q: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """Probability that at least one of n independent samples, each right with probability q, is right: 1 - (1 - q)^n.

    >>> float(extracted(0.5, 2))
    0.75
    """
    with np.errstate(divide="ignore"):  # q = 1
        return np.asarray(-np.expm1(n * np.log1p(-np.asarray(q, dtype=np.float64))))


@torch.no_grad()
def sampled_log_probability(model: nn.Module, rows: Rows, *, top_k: int, temperature: float = 1.0, batch_size: int = 64) -> Tensor:
    """Log-probability [N] (float64) of each row's window under top-k sampling; -inf where a token is not among the k likeliest."""
    found = []
    for batch in rows.batches(batch_size):
        length = max(int(batch.end.max()) - 1, 1)
        row_n, before_n = batch.window()[:, 1 : length + 1].nonzero(as_tuple=True)
        scores_nV = logits_at(model, batch.ids[:, :length], row_n * length + before_n).float() / temperature
        smallest_n1 = scores_nV.topk(min(top_k, scores_nV.shape[1]), dim=1).values[:, -1:]
        log_q_nV = scores_nV.masked_fill(scores_nV < smallest_n1, -torch.inf).log_softmax(1)
        log_q_n = log_q_nV.gather(1, batch.ids[row_n, before_n + 1][:, None]).squeeze(1).double()
        found.append(torch.zeros(len(batch), dtype=torch.float64, device=log_q_n.device).index_add_(0, row_n, log_q_n))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
