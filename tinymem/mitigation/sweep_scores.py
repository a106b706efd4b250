"""Edits at many ratios, or after many epochs, from one run of a method where it allows that.

Scores do not depend on the ratio, so one scoring pass serves all ratios; Greedy scores up to the largest, and its order of removal serves
the smaller ones. Slim, Hard Concrete and the subnets pass through 1 and 10 epochs on the way to 20; those that train at their ratio (the
subnets) run once for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import nn

from tinymem.errors import UserError
from tinymem.mitigation.frame import MitigationData, Refused, Scores, Unlearner, ablate, apply, select


def edits(
    model: nn.Module, method: Unlearner, data: MitigationData, config: Any, ratios: Sequence[float]
) -> Iterator[tuple[float, nn.Module | Refused]]:
    """Each ratio with the edited copy, or with why it was refused (it rounds to nothing)."""
    if method.kind == "edit":
        for ratio in ratios:
            yield ratio, _or_refused(model, method, data, replace(config, ratio=ratio))
        return
    scores: Scores | None = None
    for ratio in ratios:
        if scores is None and ratio > 0:
            try:
                scores = method.function(model, data, replace(config, ratio=max(ratios)))
            except Refused as error:  # the largest ratio rounds to nothing, so all do
                yield ratio, error
                continue
        yield ratio, _edit_of(model, scores, replace(config, ratio=ratio))


def edits_by_epoch(
    model: nn.Module, method: Unlearner, data: MitigationData, config: Any, ratios: Sequence[float], epochs: Sequence[int]
) -> Iterator[tuple[int, float, nn.Module | Refused]]:
    """Epochs, ratio and edit of a method whose module has `by_epoch`: all from one run, or from one run per ratio.

    Raises:
        UserError: the method has none.
    """
    by_epoch = getattr(importlib.import_module(method.function.__module__), "by_epoch", None)
    if by_epoch is None:
        known = "slim, hard-concrete, subnet, balanced-subnet"
        raise UserError(f"expected a method whose shorter runs are part of longer ones ({known}), got '{method.name}'")
    longest = replace(config, epochs=max(epochs))
    if method.kind == "edit":
        for ratio in ratios:
            yield from _edits_of_one_run(model, by_epoch, data, replace(longest, ratio=ratio), epochs)
        return
    for epoch, scores in by_epoch(model, data, longest):
        if epoch in epochs:
            for ratio in ratios:
                yield epoch, ratio, _edit_of(model, scores, replace(config, ratio=ratio, epochs=epoch))


def _edits_of_one_run(
    model: nn.Module, by_epoch: Any, data: MitigationData, config: Any, epochs: Sequence[int]
) -> Iterator[tuple[int, float, nn.Module | Refused]]:
    if config.ratio == 0:
        yield from ((epoch, 0.0, deepcopy(model)) for epoch in epochs)
        return
    try:
        for epoch, edited in by_epoch(model, data, config):
            if epoch in epochs:
                yield epoch, config.ratio, edited()
    except Refused as error:  # the ratio rounds to nothing, however many epochs
        for epoch in epochs:
            yield epoch, config.ratio, error


def _edit_of(model: nn.Module, scores: Scores | None, config: Any) -> nn.Module | Refused:
    if scores is None or config.ratio == 0:
        return deepcopy(model)
    try:
        return ablate(model, select(model, scores, config))
    except Refused as error:
        return error


def _or_refused(model: nn.Module, method: Unlearner, data: MitigationData, config: Any) -> nn.Module | Refused:
    try:
        edited: nn.Module = apply(method, model, data, config)
        return edited
    except Refused as error:
        return error
