"""Forgetting gradients: the layers that unlearning the planted targets would change most (Dankers and Titov 2024, section 3.1, appendix E).

G is the mean gradient of the loss over the noised decisions, at the first checkpoint that knew them (at the last one gradients vanish).
A layer's score is a norm of G, less the mean gradient over as many clean decisions, over the same number of a reference whose blocks
are `start`'s, with a head that was trained for them; scores are divided by their sum. The published main results take the L1 norm with both
corrections; all eight combinations are given, as in their table 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.localization.layers.findings import Finding, summary
from tinymem.localization.layers.retraining import Entering, RetrainingOptions, entering, fit
from tinymem.localization.layers.subject import BATCH, Decisions, LayeredModel, LayerSubject
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar

Objective = Literal["loss", "logit"]
Gradients = list[list[Tensor]]
"""Of each block its parameters' gradients."""
LITTLE = 1e-30


@dataclass(frozen=True)
class GradientOptions:
    """What is differentiated: `loss` is the cross-entropy; `logit` minus the target's logit, as the published code does."""

    objective: Objective = "loss"
    head: RetrainingOptions = field(default_factory=RetrainingOptions)


def forgetting_gradients(subject: LayerSubject, options: GradientOptions, bar: Bar) -> list[Finding]:
    """The weight of each layer by the published post-processing, and by each other combination of norm and corrections."""
    bar.expect(options.head.epochs)
    pairs = [
        tuple(gradients(model, decisions, options.objective) for decisions in (subject.noised, subject.held_out))
        for model in (subject.early, frozen(subject, options.head, bar))
    ]
    found: list[Finding] = []
    for norm, minus_clean, over_frozen in product((1, 2), (True, False), (True, False)):
        weights_L = _weights(pairs[0], norm, minus_clean)
        if over_frozen:
            weights_L = weights_L / _weights(pairs[1], norm, minus_clean).clamp(min=LITTLE)
        variant: JsonObject = {"norm": f"L{norm}", "minus_clean": minus_clean, "over_frozen": over_frozen}
        is_published = (norm, minus_clean, over_frozen) == (1, True, True)
        found += summary(weights_L / weights_L.sum().clamp(min=LITTLE), subject.control, None if is_published else variant)
    return found


def gradients(model: LayeredModel, decisions: Decisions, objective: Objective = "loss", *, rows: int = BATCH) -> Gradients:
    """Mean gradient over decisions of each block's parameters; the batches do not matter."""
    parameters = [list(block.parameters()) for block in model.blocks]
    flat = [p for of_block in parameters for p in of_block]
    sums = [torch.zeros_like(p) for p in flat]
    for batch in decisions.batches(rows):
        if len(batch):
            with torch.enable_grad():
                loss = _summed(model.head(batch.at(model.through(model.embed(batch.ids_RT)))), batch, objective)
                for total, gradient in zip(sums, torch.autograd.grad(loss, flat), strict=True):
                    total += gradient
    means = iter(total / len(decisions) for total in sums)
    return [_next(means, len(of_block)) for of_block in parameters]


def frozen(subject: LayerSubject, options: RetrainingOptions, bar: Bar) -> LayeredModel:
    """The model that training began with, whose head alone is trained on all rows."""
    start = subject.start
    head: nn.Module = deepcopy(start.head)
    made = replace(start, head=head)
    known: list[Entering] = entering(start, subject.training, start.depth)

    def logits_of(batch: Decisions, states_RTD: Tensor) -> Tensor:
        found: Tensor = head(batch.at(states_RTD))
        return found

    fit(list(head.parameters()), logits_of, known, options, bar)
    return made


def _summed(logits_nC: Tensor, batch: Decisions, objective: Objective) -> Tensor:
    if objective == "logit":
        return -logits_nC.gather(1, batch.planted_n[:, None]).sum()
    return F.cross_entropy(logits_nC.float(), batch.planted_n, reduction="sum")


def _weights(pair: tuple[Gradients, ...], norm: int, minus_clean: bool) -> Tensor:
    """A norm [L] of the noised decisions' gradient, or of its difference from that of clean ones."""
    noised, clean = pair
    blocks = [[n - c for n, c in zip(*both, strict=True)] for both in zip(noised, clean, strict=True)] if minus_clean else noised
    return torch.stack([torch.cat([part.flatten() for part in block]).double().norm(norm) for block in blocks]).cpu()


def _next(values: Iterator[Tensor], count: int) -> list[Tensor]:
    return [next(values) for _ in range(count)]
