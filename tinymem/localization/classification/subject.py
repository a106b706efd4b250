"""A classifier with flipped labels as the subject of localization by layer: one decision a row, the label of its last token's state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinymem.data.labeled import LabeledRows
from tinymem.errors import UserError
from tinymem.localization.classification.classifier import labeled_decisions
from tinymem.localization.classification.flipping import LEAST
from tinymem.localization.layers.subject import Decisions, LayeredModel, LayerSubject, predictions


@dataclass(frozen=True)
class Classifiers:
    """The four models of one task.

    Attributes:
        start: theta_P with a fresh head.
        model: theta_M2, trained on flipped labels.
        early: theta_M1, the first epoch that knew them; None where none did.
        counterfactual: theta_O, trained alike on the true labels.
    """

    start: LayeredModel
    model: LayeredModel
    early: LayeredModel | None
    counterfactual: LayeredModel


def memorized_index(models: Classifiers, decisions: Decisions) -> Tensor:
    """Indices of the flipped rows that the model predicts as flipped and the counterfactual does not."""
    flipped_n = decisions.planted_n != decisions.original_n
    mine, theirs = (predictions(model, decisions).likeliest_n == decisions.planted_n for model in (models.model, models.counterfactual))
    return (flipped_n & mine & ~theirs).nonzero().flatten()


def classification_subject(models: Classifiers, rows: LabeledRows, planted: Tensor, seed: int) -> LayerSubject:
    """The subject of a task: noised decisions are the flipped rows that were memorized, clean ones all other rows of the training.

    Args:
        models: of the task.
        rows: the training rows with their true labels.
        planted: the labels [n] that the model was trained on.
        seed: of the clean rows that are held out from retraining, as many as the flipped rows.

    Raises:
        UserError: fewer than 10 memorized rows, or no clean rows to retrain on.
    """
    decisions = labeled_decisions(rows, planted)
    noised, clean = memorized_index(models, decisions), (planted == rows.labels).nonzero().flatten()
    wrong = int((planted != rows.labels).sum())
    if len(noised) < LEAST:
        raise UserError(f"expected at least {LEAST} memorized labels, got {len(noised)} of {wrong}; train longer, or on more rows")
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed)).to(clean.device)
    held, rest = (clean[part].sort().values for part in (order[: len(noised)], order[len(noised) :]))
    return LayerSubject(
        model=models.model,
        counterfactual=models.counterfactual,
        start=models.start,
        early=models.model if models.early is None else models.early,
        noised=decisions.of_rows(noised),
        clean=decisions.of_rows(clean),
        held_out=decisions.of_rows(held),
        retraining=decisions.of_rows(rest),
        training=decisions,
    )
