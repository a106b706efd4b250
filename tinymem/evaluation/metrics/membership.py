"""Membership inference: can the rows that were trained on be told from rows of the same kind that were not?

Formula: AUC, and true positive rate at 1 % false positives, of a score that should be higher for members. With l_t = ln p(s_t | s[:t]):
  loss: mean of l_t; zlib: mean of l_t / bytes of the row's text, compressed; min-k: mean of the lowest 20 % of l_t;
  min-k++: mean of the lowest 20 % of (l_t - mean of ln p(.)) / standard deviation of ln p(.), both under p(. | s[:t])
Unit: probability (auc), share of members (tpr)
Direction: closer to 0.5 (auc) and 0.01 (tpr) is better after a mitigation; far below 0.5 gives members away as well
Range: 0 to 1
Source: Yeom et al. 2018 (loss); Carlini et al. 2021 (zlib); Shi et al. 2024 (Min-k%); Zhang et al. 2025 (Min-k%++); Carlini et al. 2022

Members are the trained artifact rows; the non-members to compare with are those of the artifact's kind (`Artifact.non_members`). Whole rows
without padding, canaries up to the end of the secret. `forget` and `holdout` are groups of members; the non-members stay the same.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.corpus import Corpus
from tinymem.data.planted import Population
from tinymem.data.samples import decoder
from tinymem.evaluation.metric import MetricColumn, metric
from tinymem.evaluation.nonmembers import populations
from tinymem.evaluation.roc import Scores, auc, true_positive_rate
from tinymem.evaluation.view import View
from tinymem.models.adapters import logits_at
from tinymem.runtime.json import JsonObject

LOWEST = 0.2
PIECE = 1 << 24  # logits that are in float64 at a time
ATTACKS = ("loss", "zlib", "min-k", "min-k++")

COLUMN = MetricColumn("membership AUC", ("min-k++", "all", "auc"), note="Membership: Min-k%++, 0.5 is chance.")


@metric("membership", column=COLUMN)
def membership(view: View, kind: str) -> JsonObject | None:
    """AUC and true positive rate, by attack and group of members."""
    corpus = view.evaluator.corpus
    if corpus is None:
        return None
    members, others = populations(corpus, kind)
    inside, outside = (attack_scores(view.model, corpus, rows, view.evaluator.batch_size) for rows in (members, others))
    groups = view.masks(kind, members.index)
    found: JsonObject = {"members": {name: int(among.sum()) for name, among in groups.items()}, "non-members": len(others.ids)}
    for attack in ATTACKS:
        found[attack] = {name: _separation(inside[attack][among], outside[attack]) for name, among in groups.items()}
    return found


def _separation(members: Scores, others: Scores) -> JsonObject:
    return {"auc": auc(members, others), "tpr at 1 % fpr": true_positive_rate(members, others)}


def attack_scores(model: nn.Module, corpus: Corpus, rows: Population, batch_size: int) -> dict[str, Scores]:
    """Every attack's score [N] of some rows, higher for likelier members."""
    found: dict[str, list[float]] = {attack: [] for attack in ATTACKS}
    decode = decoder(corpus)
    token_scores = _token_scores(model, rows, batch_size)
    for ids, end, (log_p, standardized) in zip(rows.ids, rows.content, token_scores, strict=True):
        compressed = len(zlib.compress(decode(ids[:end].tolist()).encode()))
        found["loss"].append(float(log_p.mean()))
        found["zlib"].append(float(log_p.mean()) / compressed)
        found["min-k"].append(lowest_mean(log_p))
        found["min-k++"].append(lowest_mean(standardized))
    return {attack: np.nan_to_num(np.array(scores, dtype=np.float64), nan=-np.inf) for attack, scores in found.items()}


def lowest_mean(values: Scores) -> float:
    """Mean of the lowest fifth of some numbers, at least one."""
    return float(np.sort(values)[: max(1, int(LOWEST * len(values)))].mean())


@torch.no_grad()
def _token_scores(model: nn.Module, rows: Population, batch_size: int) -> list[tuple[Scores, Scores]]:
    """Scores per token after the first of each row: its log-probability, and that in standard deviations from the vocabulary's mean."""
    device = next(model.parameters()).device
    found: list[tuple[Scores, Scores]] = []
    for first in range(0, len(rows.ids), batch_size):
        ends = rows.content[first : first + batch_size]
        ids_BT = torch.from_numpy(rows.ids[first : first + batch_size, : ends.max()].astype(np.int64)).to(device)
        length = ids_BT.shape[1] - 1
        inside_BT = torch.arange(length, device=device)[None, :] < torch.from_numpy(ends - 1).to(device)[:, None]
        row_n, before_n = inside_BT.nonzero(as_tuple=True)
        scores = _standardized(logits_at(model, ids_BT[:, :length], row_n * length + before_n), ids_BT[row_n, before_n + 1])
        pieces = [part.cpu().numpy() for part in scores]
        cuts = np.cumsum(ends - 1)[:-1]
        found += zip(*(np.split(part, cuts) for part in pieces), strict=True)
    return found


def _standardized(logits_nV: Tensor, targets_n: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and that in standard deviations from the mean; a piece at a time, since float64 takes room."""
    size = max(1, PIECE // logits_nV.shape[1])
    pieces = [_standardized_piece(*piece) for piece in zip(logits_nV.split(size), targets_n.split(size), strict=True)]
    log_p_n, standardized_n = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return log_p_n, standardized_n


def _standardized_piece(logits_nV: Tensor, targets_n: Tensor) -> tuple[Tensor, Tensor]:
    log_p_nV = logits_nV.double().log_softmax(1)
    log_p_n = log_p_nV.gather(1, targets_n[:, None]).squeeze(1)
    p_nV = log_p_nV.exp()
    mean_n = (p_nV * log_p_nV).sum(1)
    variance_n = (p_nV * (log_p_nV - mean_n[:, None]).square()).sum(1)
    return log_p_n, (log_p_n - mean_n) / variance_n.clamp_min(1e-12).sqrt()
