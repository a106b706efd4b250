"""Layer retraining: some layers start anew and learn clean rows among the memorizing model's others (Dankers and Titov 2024, section 3.1).

A window's blocks are reset to `start` and trained on clean rows, with the final norm (and a classifier); all other blocks and the
embeddings are frozen. What the noised decisions still are as planted afterwards, the other layers remember. The states that enter a window
are computed once for all windows with the same first layer, since nothing below is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.subject import Decisions, LayeredModel, LayerSubject
from tinymem.localization.layers.windows import Window, findings_of, sets_of, windows
from tinymem.runtime.progress import Bar


@dataclass(frozen=True)
class RetrainingOptions:
    """How layers are retrained: AdamW at a constant rate; passes over the rows, rows of a step, weight decay and seed of the order."""

    epochs: int = 5
    learning_rate: float = 3e-5
    batch_size: int = 8
    weight_decay: float = 0.01
    seed: int = 0


Entering = tuple[Decisions, Tensor]
"""Decisions with the states [R, T, D] of their rows that enter a block."""


def layer_retraining(subject: LayerSubject, options: RetrainingOptions, bar: Bar) -> list[Finding]:
    """Errors of all windows of retrained layers, and the weight of each layer."""
    likeliest: dict[str, dict[Window, Tensor]] = {name: {} for name in sets_of(subject)}
    wanted = windows(subject.depth)
    bar.expect(len(wanted) * options.epochs)
    for first in range(subject.depth):
        known = {name: entering(subject.model, found, first) for name, found in sets_of(subject).items()}
        clean = entering(subject.model, subject.retraining, first)
        for window in wanted:
            if window[0] == first:
                model = retrained(subject, window, clean, options, bar)
                for name, batches in known.items():
                    likeliest[name][window] = _likeliest(model, batches, first)
    return findings_of(subject, likeliest)


@torch.no_grad()
def entering(model: LayeredModel, decisions: Decisions, first: int) -> list[Entering]:
    """Batches of decisions with the states that enter block `first`."""
    found = []
    for batch in decisions.batches():
        states_RTD = model.embed(batch.ids_RT)
        for block in model.blocks[:first]:
            states_RTD = block(states_RTD)
        found.append((batch, states_RTD))
    return found


def retrained(subject: LayerSubject, window: Window, clean: list[Entering], options: RetrainingOptions, bar: Bar) -> LayeredModel:
    """The memorizing model with a window's blocks trained anew on rows whose states enter the window; it shares the other blocks."""
    first, last = window
    model, fresh = subject.model, [deepcopy(block) for block in subject.start.blocks[first : last + 1]]
    head = deepcopy(model.head)
    made = replace(model, blocks=(*model.blocks[:first], *fresh, *model.blocks[last + 1 :]), head=head)
    parameters = [p for module in fresh for p in module.parameters()] + without_embeddings(head)

    def logits_of(batch: Decisions, states_RTD: Tensor) -> Tensor:
        found: Tensor = made.head(batch.at(made.through(states_RTD, first)))
        return found

    fit(parameters, logits_of, clean, options, bar)
    return made


def fit(
    parameters: list[nn.Parameter],
    logits_of: Callable[[Decisions, Tensor], Tensor],
    known: list[Entering],
    options: RetrainingOptions,
    bar: Bar,
) -> None:
    """Train parameters on the planted targets of decisions whose states are known; gradients go to these parameters only."""
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    with torch.enable_grad():
        for _ in range(options.epochs):
            for batch, states_RTD in _shuffled(known, options.batch_size, generator):
                loss = F.cross_entropy(logits_of(batch, states_RTD).float(), batch.planted_n)
                for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = gradient
                optimizer.step()
            bar.advance(1)


def without_embeddings(head: nn.Module) -> list[nn.Parameter]:
    """Parameters of a head that retraining trains: not an embedding's, to which a language model's head is tied."""
    return [p for module in head.modules() if not isinstance(module, nn.Embedding) for p in module.parameters(recurse=False)]


def _shuffled(known: Iterable[Entering], size: int, generator: torch.Generator) -> Iterator[Entering]:
    """All rows once in random order, `size` at a time, with their decisions; of a stored batch its rows come together."""
    parts = list(known)
    for index in torch.randperm(len(parts), generator=generator).tolist():
        batch, states_RTD = parts[index]
        order_R = torch.randperm(len(batch.ids_RT), generator=generator).to(states_RTD.device)
        for rows in order_R.split(size):
            found = batch.of_rows(rows)
            if len(found):
                yield found, states_RTD[rows]


@torch.no_grad()
def _likeliest(model: LayeredModel, batches: Iterable[Entering], first: int) -> Tensor:
    return torch.cat([model.head(batch.at(model.through(states_RTD, first))).argmax(-1) for batch, states_RTD in batches])
