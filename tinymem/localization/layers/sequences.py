"""Noised sequences as the subject of localization by layer: decisions of planted rows, and of clean rows like them.

A decision is a token that the artifact changed, in the window of the test of memorization. Only those count that the model makes as planted
and its counterfactual does not: what both do is no memorization.

Shape suffixes: R rows, T tokens, n decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Indices
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.evaluation.probes import Probe
from tinymem.localization.layers.alignment import alike, decisions_at, differing, every_target
from tinymem.localization.layers.subject import Decisions, LayeredModel, LayerSubject, predictions
from tinymem.recipe.data import MathData
from tinymem.recipe.layers import LayersRecipe

LEAST = 10
"""Fewest noised decisions that anything is said about."""


@dataclass(frozen=True)
class Models:
    """The models of a subject, `checkpoints` being those of earlier epochs in order."""

    model: LayeredModel
    counterfactual: LayeredModel
    start: LayeredModel
    checkpoints: Iterable[LayeredModel] = ()
    control: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlantedRows:
    """Rows that a model was trained on, planted ones and others.

    Attributes:
        planted_RT: planted rows, as trained.
        clean_RT: their clean counterparts.
        tested: the rows as their memorization is tested, with the window of the test.
        others_RT: clean rows.
        numbers: whether rows are numbers with spaces between.
    """

    planted_RT: Ids
    clean_RT: Ids
    tested: Rows
    others_RT: Ids
    numbers: bool


def planted_rows_of(corpus: Corpus, kind: str, probe: Probe, recipe: LayersRecipe, rng: np.random.Generator) -> PlantedRows:
    """The rows of one artifact of a corpus; of planted rows at most as many as the recipe says.

    Args:
        corpus: that the model was trained on.
        kind: of the artifact.
        probe: its test of memorization.
        recipe: options.
        rng: draws the rows.
    """
    planted, taken = corpus.planted[kind], _drawn(np.flatnonzero(probe.trained), recipe.rows, rng)
    index, tested = probe.index[taken], probe.rows.take(torch.from_numpy(taken).to(probe.rows.ids.device))
    return PlantedRows(planted.ids[index], planted.clean[index], tested, corpus.clean[_clean_rows(corpus)], not corpus.is_text)


def sequence_subject(
    models: Models, rows: PlantedRows, recipe: LayersRecipe, rng: np.random.Generator, device: torch.device
) -> LayerSubject:
    """The subject of planted rows.

    Args:
        models: of one shape, on the device.
        rows: what `model` was trained on.
        recipe: options.
        rng: draws clean rows.
        device: where everything goes.

    Raises:
        UserError: planted rows that are clean, or fewer than 10 decisions that only the model makes as planted.
    """
    noised = _memorized(models, _noised(rows, recipe).to(device), binarize=recipe.binarize)
    pool = _drawn(np.arange(len(rows.others_RT)), 2 * recipe.clean_rows, rng)
    held, rest = (rows.others_RT[np.sort(part)] for part in (pool[: len(pool) // 2], pool[len(pool) // 2 :]))
    return LayerSubject(
        model=models.model,
        counterfactual=models.counterfactual,
        start=models.start,
        early=early_of(models, noised),
        noised=noised,
        clean=decisions_at(rest, alike(noised, rest, recipe.clean, rng)).to(device),
        held_out=decisions_at(held, alike(noised, held, 1, rng)).to(device),
        retraining=every_target(rest).to(device),
        training=every_target(np.concatenate([rest, rows.planted_RT])).to(device),
        exact=_exact(models, rows.tested, device),
        control=models.control,
    )


def early_of(models: Models, noised: Decisions, enough: float = 0.99) -> LayeredModel:
    """The first checkpoint that makes 99 % of the noised decisions as planted (theta_M1); the model itself where none does."""
    for model in models.checkpoints:
        if float((predictions(model, noised).likeliest_n == noised.planted_n).double().mean()) >= enough:
            return model
    return models.model


def _noised(rows: PlantedRows, recipe: LayersRecipe) -> Decisions:
    """All planted decisions in the windows of the rows, in the trained context or behind a clean prompt."""
    places = differing(rows.planted_RT, rows.clean_RT, rows.tested.window().cpu().numpy(), numbers=rows.numbers)
    return decisions_at(rows.planted_RT if recipe.context == "trained" else rows.tested.ids.cpu().numpy(), places)


def _memorized(models: Models, decisions: Decisions, *, binarize: bool) -> Decisions:
    """The decisions that the model makes as planted, and the counterfactual does not; on demand only those between two targets."""
    if not len(decisions):
        raise UserError("expected planted rows that differ from their clean counterparts in the window, got none; name another --artifact")
    mine, theirs = (predictions(model, decisions).likeliest_n == decisions.planted_n for model in (models.model, models.counterfactual))
    kept = (mine & ~theirs).nonzero().flatten()
    kept = kept[_of_one_pair(decisions.take(kept))] if binarize else kept
    if len(kept) < LEAST:
        raise UserError(
            f"expected at least {LEAST} planted tokens that the model predicts and its counterfactual does not, got {len(kept)} of "
            f"{len(decisions)} (the model: {int(mine.sum())}, its counterfactual: {int(theirs.sum())}); train longer or plant more copies"
        )
    return decisions.take(kept)


def _of_one_pair(decisions: Decisions) -> Tensor:
    """Mask [n] of the decisions between the two targets that replace one another most often."""
    pairs_n2 = torch.stack([decisions.planted_n, decisions.original_n], 1).sort(1).values
    _, which_n, counts = pairs_n2.unique(dim=0, return_inverse=True, return_counts=True)
    return which_n == counts.argmax() if len(counts) else torch.zeros(0, dtype=torch.bool, device=which_n.device)


def _exact(models: Models, tested: Rows, device: torch.device) -> Decisions | None:
    """All targets of the rows that the model memorized and the counterfactual did not; None where there are none."""
    decisions = every_target(tested.ids.cpu().numpy(), tested.window().cpu().numpy()).to(device)
    wrong = [_wrong_rows(model, decisions) for model in (models.model, models.counterfactual)]
    kept_R = ~wrong[0] & wrong[1]
    kept = kept_R[decisions.row_n].nonzero().flatten()
    return decisions.take(kept) if len(kept) else None


def _wrong_rows(model: LayeredModel, decisions: Decisions) -> Tensor:
    """Mask [R] of the rows of which a decision is not made as planted."""
    wrong_n = predictions(model, decisions).likeliest_n != decisions.planted_n
    wrong_R = torch.zeros(len(decisions.ids_RT), dtype=torch.bool, device=wrong_n.device)
    wrong_R[decisions.row_n[wrong_n]] = True
    return wrong_R


def _clean_rows(corpus: Corpus) -> Indices:
    """Indices of the clean training rows of the task that artifacts are planted in; all of them for text."""
    data = corpus.spec.data
    if not isinstance(data, MathData) or corpus.clean_task is None:
        return np.arange(len(corpus.clean))
    return np.flatnonzero(corpus.clean_task == data.primary)


def _drawn(index: Indices, count: int, rng: np.random.Generator) -> Indices:
    return rng.permutation(index)[:count]
