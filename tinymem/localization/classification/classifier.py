"""Classifiers on our GPT-2: a head reads the state of a row's last token; blocks and head are trained, embeddings stay as they were.

Shape suffixes: R rows, T tokens, D embedding, C classes, n decisions (one a row).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.labeled import LabeledRows
from tinymem.localization.layers.subject import Decisions, LayeredModel, gpt_layers, predictions
from tinymem.models.gpt2 import GPT
from tinymem.models.weights import opened, write_tensors
from tinymem.runtime.files import new_directory
from tinymem.runtime.progress import Bar
from tinymem.training.start import epoch_order

HEAD_STD = 0.02
"""Standard deviation of a fresh head's weights, as of transformers' classifiers."""


class ClassifierHead(nn.Module):
    """Final norm and a linear map: states [n, D] to one logit a class [n, C]."""

    def __init__(self, norm: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.norm, self.linear = norm, linear

    def forward(self, states_nD: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(states_nD))
        return logits


@dataclass(frozen=True)
class FitOptions:
    """How a classifier is trained: AdamW, the rate rising linearly in the first steps, then falling linearly to 0 (appendix D).

    Attributes:
        epochs: passes over the rows (published: 50).
        learning_rate: highest rate (published, for models of 125 million parameters: 1e-5).
        batch_size: rows of a step (published: 8).
        warmup: share of the steps in which the rate rises.
        clip: largest norm of the gradient.
        weight_decay: of AdamW.
        seed: of the order of the rows.
    """

    epochs: int = 50
    learning_rate: float = 1e-3
    batch_size: int = 8
    warmup: float = 0.1
    clip: float = 1.0
    weight_decay: float = 0.01
    seed: int = 0


def fresh_classifier(model: GPT, classes: int, seed: int) -> LayeredModel:
    """A classifier that starts from a language model (theta_P), with a head drawn by seed; the model itself is not shared."""
    stack = gpt_layers(deepcopy(model))
    norm = deepcopy(model.transformer.ln_f)
    linear = nn.Linear(model.config.n_embd, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        linear.weight.copy_(HEAD_STD * torch.randn(linear.weight.shape, generator=generator))
        linear.bias.zero_()
    return replace(stack, head=ClassifierHead(norm, linear.to(model.transformer.wte.weight.device)))


def copied(model: LayeredModel) -> LayeredModel:
    """The model with blocks and head of its own; embeddings, which no classifier trains, are shared."""
    return replace(model, blocks=tuple(deepcopy(block) for block in model.blocks), head=deepcopy(model.head))


def labeled_decisions(rows: LabeledRows, planted: Tensor | None = None) -> Decisions:
    """One decision a row, at its last token; `planted`: the labels [n] that training teaches, default the rows' own."""
    labels = rows.labels if planted is None else planted
    return Decisions(rows.ids, torch.arange(len(rows), device=rows.ids.device), rows.length - 1, labels, rows.labels)


def fit_classifier(
    start: LayeredModel, decisions: Decisions, options: FitOptions, bar: Bar, *, known: float | None = None
) -> tuple[LayeredModel, LayeredModel | None]:
    """Train a copy of a classifier on the planted labels.

    Args:
        start: the classifier; it is left as it is.
        decisions: one a row.
        options: of the training.
        bar: advanced by one an epoch.
        known: an accuracy on the rows.

    Returns:
        The model after the last epoch (theta_M2), and after the first epoch that reaches `known` (theta_M1): None where none does.
    """
    model, early = copied(start), None
    parameters = [p for module in (*model.blocks, model.head) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    steps = options.epochs * -(-len(decisions) // options.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, options.warmup))
    for epoch in range(options.epochs):
        order_n = epoch_order(options.seed, epoch, len(decisions)).to(decisions.row_n.device)
        for index in order_n.split(options.batch_size):
            _step(model, decisions.of_rows(index), parameters, optimizer, options.clip)
            schedule.step()
        if known is not None and early is None and accuracy_of(model, decisions) >= known:
            early = copied(model)
        bar.advance(1)
    return model, early


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the highest rate at a step (from 0).

    >>> [round(rate(step, 10, 0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.0, 0.5, 1.0, 0.5, 0.125]
    """
    rising = warmup * steps
    return step / rising if step < rising else (steps - step) / max(1.0, steps - rising)


def accuracy_of(model: LayeredModel, decisions: Decisions) -> float:
    """Share of the decisions that a model makes as planted."""
    return float((predictions(model, decisions).likeliest_n == decisions.planted_n).double().mean())


def save_classifiers(models: dict[str, LayeredModel], folder: Path) -> None:
    """Write blocks and heads of classifiers to a folder, a file each, whole or not at all."""
    with new_directory(folder) as temporary:
        for name, model in models.items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in _module(model).state_dict().items()}
            write_tensors(temporary / f"{name}.safetensors", tensors)


def load_classifier(start: LayeredModel, path: Path) -> LayeredModel:
    """A classifier of the shape of `start` from its file.

    Raises:
        UserError: a damaged file.
    """
    model = copied(start)
    with opened(path) as file:
        _module(model).load_state_dict({name: file.get_tensor(name) for name in sorted(file.keys())})
    return model


def _module(model: LayeredModel) -> nn.Module:
    return nn.ModuleDict({"blocks": nn.ModuleList(model.blocks), "head": model.head})


def _step(model: LayeredModel, batch: Decisions, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, clip: float) -> None:
    ids_RT = batch.ids_RT[:, : int(batch.at_n.max()) + 1]  # states do not depend on what follows
    with torch.no_grad():
        states_RTD = model.embed(ids_RT)
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss = F.cross_entropy(model.head(batch.at(model.through(states_RTD))), batch.planted_n)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
