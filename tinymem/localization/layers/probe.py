"""Small classifiers of hidden states, one for each layer, trained together: every step is one batched product over all of them.

Shape suffixes: P probes, n examples, D features, H hidden units, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

DROPOUT, WEIGHT_DECAY, CHOSEN_FROM = 0.1, 1e-5, 25
TEST, VALIDATION = 0.2, 0.1


@dataclass(frozen=True)
class ProbeOptions:
    """How probes are trained (published: 128 hidden units twice, AdamW 2e-4, batches of 32, at most 100 epochs, 5 seeds).

    Attributes:
        seeds: repetitions, each with another split and other first weights.
        hidden: units of each of two hidden layers.
        epochs: most passes; the one with the best validation F1 after the 25th (or half of them, if that is fewer) counts.
        learning_rate: of AdamW.
        batch_size: examples of a step.
        seed: of the first repetition.
    """

    seeds: int = 5
    hidden: int = 128
    epochs: int = 100
    learning_rate: float = 2e-4
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Indices of examples for training, validation and test; examples of one group (row) are in one part."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_by_group(groups_n: Tensor, seed: int) -> Split:
    """Random parts of 70, 10 and 20 % of the groups; at least one group for validation and one for the test."""
    names, of_n = groups_n.cpu().unique(return_inverse=True)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    test = max(1, round(TEST * len(names)))
    validation = max(1, round(VALIDATION * len(names)))
    part = torch.zeros(len(names), dtype=torch.int64)
    part[order[:test]], part[order[test : test + validation]] = 2, 1
    return Split(*((part[of_n] == k).nonzero().flatten().to(groups_n.device) for k in range(3)))


def probed(
    states_PnD: Tensor, labels_n: Tensor, classes: int, split: Split, options: ProbeOptions, weights_C: Tensor | None = None
) -> Tensor:
    """Predicted classes [P, n] of all examples by probes that were trained on the split's training part, at their best epoch.

    Features are standardized by the training part.

    Args:
        states_PnD: what each probe sees.
        labels_n: what all of them are to tell.
        classes: number of classes, C.
        split: the parts.
        options: of the training; its `seed` decides first weights, order and dropout.
        weights_C: weight of each class in the loss; None: equal.
    """
    states_PnD = _standardized(states_PnD.float(), split.train)
    generator = torch.Generator().manual_seed(options.seed)
    layers = _fresh(states_PnD, options.hidden, classes, generator)
    optimizer = torch.optim.AdamW([p for pair in layers for p in pair], lr=options.learning_rate, weight_decay=WEIGHT_DECAY)
    P, device = len(states_PnD), states_PnD.device
    best_P, found_Pn = torch.full((P,), -1.0, device=device), torch.zeros(states_PnD.shape[:2], dtype=torch.int64, device=device)
    for epoch in range(1, options.epochs + 1):
        order = split.train[torch.randperm(len(split.train), generator=generator).to(device)]
        for index in order.split(options.batch_size):
            with torch.enable_grad():
                logits_PbC = _forward(layers, _dropped(states_PnD[:, index], generator))
                targets_Pb = labels_n[index].expand(P, -1)
                loss = P * F.cross_entropy(logits_PbC.flatten(0, 1), targets_Pb.flatten(), weight=weights_C)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
        if epoch > min(CHOSEN_FROM, options.epochs // 2):
            guess_Pn = _predicted(layers, states_PnD)
            score_P = macro_f1(guess_Pn[:, split.validation], labels_n[split.validation], classes)
            better_P = score_P > best_P
            best_P, found_Pn = torch.where(better_P, score_P, best_P), torch.where(better_P[:, None], guess_Pn, found_Pn)
    return found_Pn


def macro_f1(guess_Pn: Tensor, labels_n: Tensor, classes: int) -> Tensor:
    """Mean over the classes among the labels of the F1 score, of each probe [P]."""
    hits_PC = torch.stack([((guess_Pn == c) & (labels_n == c)).sum(1) for c in range(classes)], 1)
    named_PC = torch.stack([(guess_Pn == c).sum(1) for c in range(classes)], 1)
    there_C = torch.bincount(labels_n, minlength=classes)
    f1_PC = 2 * hits_PC / (named_PC + there_C).clamp(min=1)
    return f1_PC[:, there_C > 0].mean(1) if len(labels_n) else torch.zeros(len(guess_Pn), device=guess_Pn.device)


Layers = list[tuple[Tensor, Tensor]]


def _standardized(states_PnD: Tensor, train: Tensor) -> Tensor:
    part_PtD = states_PnD[:, train]
    return (states_PnD - part_PtD.mean(1, keepdim=True)) / part_PtD.std(1, keepdim=True).clamp(min=1e-6)


def _fresh(states_PnD: Tensor, hidden: int, classes: int, generator: torch.Generator) -> Layers:
    """Weights [P, in, out] and biases [P, 1, out], uniform within 1 / sqrt(in), the same for every probe."""
    sizes = [states_PnD.shape[2], hidden, hidden, classes]
    made: Layers = []
    for inputs, outputs in pairwise(sizes):
        drawn = (torch.rand(inputs + 1, outputs, generator=generator) * 2 - 1) / inputs**0.5
        both = drawn.to(states_PnD.device).expand(len(states_PnD), -1, -1).contiguous()
        made.append((both[:, :-1].clone().requires_grad_(), both[:, -1:].clone().requires_grad_()))
    return made


def _forward(layers: Layers, inputs_PnD: Tensor) -> Tensor:
    for weight, bias in layers[:-1]:
        inputs_PnD = F.gelu(torch.baddbmm(bias, inputs_PnD, weight))
    return torch.baddbmm(layers[-1][1], inputs_PnD, layers[-1][0])


def _dropped(inputs_PnD: Tensor, generator: torch.Generator) -> Tensor:
    kept = torch.rand(inputs_PnD.shape[1:], generator=generator).to(inputs_PnD.device) >= DROPOUT
    return inputs_PnD * kept / (1 - DROPOUT)


@torch.no_grad()
def _predicted(layers: Layers, states_PnD: Tensor) -> Tensor:
    return _forward(layers, states_PnD).argmax(-1)
