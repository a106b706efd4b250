"""Sequence-level localization: an edit for each row to forget (Chang et al. 2024), where TinyMem makes one edit for all of them.

Both use the same scorers: a neuron method registers with `by_row(model, data, config)`, which scores each row apart, all rows at once.
The method's own score is the mean of these wherever it is additive (Zero, IG, and Act's mean of absolute values when all suffixes are
equally long).

    scores_SLF = scores_by_row(UNLEARNERS.get("ig"), model, data, config)
    chosen_SLF = select_by_row(model, scores_SLF, config)
    with edited_by_row(model, chosen_SLF):
        logits_STV = model(data.forget.ids)

Shape suffixes: S rows scored apart, L layers, F neurons of a layer, T tokens, V vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation.ablation import select
from tinymem.mitigation.method import MitigationData, Unlearner
from tinymem.mitigation.methods.neuron._common import NeuronConfig, as_scores, gated
from tinymem.models.adapters import neuron_layers


def scores_by_row(method: Unlearner, model: nn.Module, data: MitigationData, config: NeuronConfig) -> Tensor:
    """Scores [S, L, F] of each row of `data.forget` by itself, for one edit per row.

    Raises:
        UserError: the method has no scores of single rows.
    """
    if method.by_row is None:
        raise UserError(f"expected a method that scores rows apart (zero, act, ig, slim, hard-concrete, nemo, ...), got '{method.name}'")
    return method.by_row(model, data, config)


def select_by_row(model: nn.Module, scores_SLF: Tensor, config: NeuronConfig) -> Tensor:
    """Mask [S, L, F] of the neurons that each row's own edit zeroes: exactly as many as `select` takes, ties to the earlier.

    Raises:
        Refused: a positive ratio that rounds to nothing.
    """
    masks = [select(model, as_scores(model, scores_LF, config), config).values for scores_LF in scores_SLF]
    nothing = torch.zeros(scores_SLF.shape[0], scores_SLF.shape[2], dtype=torch.bool, device=scores_SLF.device)
    layers = [layer.weight_name for layer in neuron_layers(model)]
    return torch.stack([torch.stack([m[n] for m in masks]) if masks and n in masks[0] else nothing for n in layers], dim=1)


def edited_by_row(model: nn.Module, chosen_SLF: Tensor) -> AbstractContextManager[None]:
    """Inside the context the model's batch of S rows runs under S edits at once: row s without the neurons chosen for it."""
    return gated(model, list((~chosen_SLF)[:, :, None].unbind(1)))
