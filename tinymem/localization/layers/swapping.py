"""Layer swapping: the counterfactual's blocks in the memorizing model (Dankers and Titov 2024, section 3.1).

Both models began alike and saw the same rows in the same order, planted ones aside, so that one's blocks work among the other's: clean
decisions tell whether they do. For a model of L layers the blocks run L (L + 1) (L + 2) / 6 + L times instead of L * L (L + 1) / 2: of the
windows with one first layer each begins where the narrower one ended, behind the memorizing model's own lower blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.subject import BATCH, Decisions, LayeredModel, LayerSubject
from tinymem.localization.layers.windows import Window, findings_of, sets_of, windows
from tinymem.runtime.progress import Bar


def layer_swapping(subject: LayerSubject, bar: Bar) -> list[Finding]:
    """Errors of all windows of swapped layers, and the weight of each layer."""
    sets = sets_of(subject)
    bar.expect(sum(-(-len(decisions.ids_RT) // BATCH) for decisions in sets.values()))
    return findings_of(subject, {name: swapped(subject.model, subject.counterfactual, found, bar) for name, found in sets.items()})


@torch.no_grad()
def swapped(model: LayeredModel, other: LayeredModel, decisions: Decisions, bar: Bar) -> dict[Window, Tensor]:
    """Likeliest target [n] of each decision, for each window of `model` that holds the blocks of `other`."""
    parts: dict[Window, list[Tensor]] = {window: [] for window in windows(model.depth)}
    for batch in decisions.batches():
        for (first, last), states_RTD in _behind_windows(model, other, batch):
            if (first, last) in parts:
                parts[first, last].append(model.head(batch.at(model.through(states_RTD, last + 1))).argmax(-1))
        bar.advance(1)
    return {window: torch.cat(found) for window, found in parts.items()}


def _behind_windows(model: LayeredModel, other: LayeredModel, batch: Decisions) -> Iterator[tuple[Window, Tensor]]:
    """The states [R, T, D] behind each window of the other's blocks."""
    entering_RTD = model.embed(batch.ids_RT)
    for first in range(model.depth):
        states_RTD = entering_RTD
        for last in range(first, model.depth):
            states_RTD = other.blocks[last](states_RTD)
            yield (first, last), states_RTD
        entering_RTD = model.blocks[first](entering_RTD)
