"""How well a task generalizes: predictions of training rows by classifiers that were trained without them.

Dankers and Titov 2024 (section 5): train on a random half of the rows, predict the others, many times over; the score is the share
of rows whose label is more probable than by guessing. The published code reports the mean probability itself, which stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinymem.localization.layers.subject import Decisions, LayeredModel, predictions
from tinymem.runtime.progress import Bar


@dataclass(frozen=True)
class Generalization:
    """Held-out predictions of a task.

    Attributes:
        probability_n: mean probability of each row's label over the halves that it was held out of; NaN where there is none.
        classes: number of classes, C.
    """

    probability_n: Tensor
    classes: int

    @property
    def score(self) -> float:
        """Share of the rows whose label is more probable than 1 / C."""
        return float((self._known > 1 / self.classes).double().mean())

    @property
    def probability(self) -> float:
        """Mean probability of a held-out row's label."""
        return float(self._known.mean())

    @property
    def _known(self) -> Tensor:
        return self.probability_n[~self.probability_n.isnan()]


def generalization(
    decisions: Decisions, classes: int, halves: int, seed: int, train: Callable[[Decisions, int], LayeredModel], bar: Bar
) -> Generalization:
    """Train on random halves of the rows, and predict the rest.

    Args:
        decisions: the rows with their true labels as targets.
        classes: number of classes.
        halves: how many times (published: 30).
        seed: of the first half; each has its own.
        train: a classifier from a half of the rows and a seed.
        bar: advanced by one a half.
    """
    total_n = torch.zeros(len(decisions), dtype=torch.float64)
    count_n = torch.zeros(len(decisions), dtype=torch.float64)
    for half in range(halves):
        order_n = torch.randperm(len(decisions), generator=torch.Generator().manual_seed(seed + half))
        mine, others = (part.sort().values.to(decisions.row_n.device) for part in order_n.tensor_split([len(order_n) // 2]))
        found = predictions(train(decisions.of_rows(mine), seed + half), decisions.of_rows(others))
        total_n[others.cpu()] += found.planted_n.exp().double().cpu()
        count_n[others.cpu()] += 1
        bar.advance(1)
    return Generalization(total_n / count_n, classes)


def above_guessing(accuracy: float, classes: int) -> float:
    """Accuracy on a scale from 0 (guessing) to 1.

    >>> above_guessing(0.5, 2), above_guessing(1.0, 6), above_guessing(0.75, 2)
    (0.0, 1.0, 0.5)
    """
    return (accuracy - 1 / classes) / (1 - 1 / classes)
