"""Windows of consecutive layers: all of them, what is measured of each, and the weight of a layer that follows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tinymem.localization.layers.findings import Finding, summary
from tinymem.localization.layers.subject import Decisions, LayerSubject, predictions

Window = tuple[int, int]
"""First and last block, from 0, both included."""
ALL_UP_TO = 12
"""Deeper models get windows of 1 to 4 layers, of half of them and of all alone."""


def windows(depth: int) -> list[Window]:
    """All windows of consecutive layers, by first layer; of models of more than 12 layers those of some widths.

    >>> windows(2)
    [(0, 0), (0, 1), (1, 1)]
    """
    widths = set(range(1, depth + 1)) if depth <= ALL_UP_TO else {1, 2, 3, 4, depth // 2, depth}
    return [(first, last) for first in range(depth) for last in range(first, depth) if last - first + 1 in widths]


def heat(errors: Mapping[Window, float], depth: int) -> Tensor:
    """Mean error [widths, L] over the windows of each width that contain each layer, a row a width that there is, narrow ones first."""
    widths = sorted({last - first + 1 for first, last in errors})
    return torch.tensor([[_mean(errors, width, layer) for layer in range(depth)] for width in widths], dtype=torch.float64)


def _mean(errors: Mapping[Window, float], width: int, layer: int) -> float:
    values = [error for (first, last), error in errors.items() if last - first + 1 == width and first <= layer <= last]
    return sum(values) / len(values)


def weights_of(errors: Mapping[Window, float], depth: int) -> Tensor:
    """Weight [L] of each layer: the mean over widths of `heat`, over the error of the window of all layers (section 4.1).

    Where that window makes no error, so that nothing was forgotten, all weights are 0.
    """
    full = errors[0, depth - 1]
    weights_L = heat(errors, depth).mean(0)
    return weights_L / full if full > 0 else torch.zeros_like(weights_L)


def findings_of(subject: LayerSubject, likeliest: Mapping[str, Mapping[Window, Tensor]]) -> list[Finding]:
    """Errors of all windows, from the likeliest targets [n] of each set of decisions, and the weights of the layers.

    `error`: share of the noised decisions no longer made as planted; `exact_error`: share of the rows no longer memorized;
    `clean_accuracy`: share of the held-out clean decisions that are right; `clean_before`: that of the model as it is.
    """
    error = {window: 1 - accuracy(found_n, subject.noised) for window, found_n in likeliest["noised"].items()}
    found = [_of_window("error", window, value) for window, value in error.items()]
    if subject.exact is not None:
        exact = {window: 1 - exact_share(found_n, subject.exact) for window, found_n in likeliest["exact"].items()}
        found += [_of_window("exact_error", window, value) for window, value in exact.items()]
    found += [_of_window("clean_accuracy", w, accuracy(found_n, subject.held_out)) for w, found_n in likeliest["held_out"].items()]
    found.append(Finding("clean_before", accuracy(predictions(subject.model, subject.held_out).likeliest_n, subject.held_out)))
    return found + summary(weights_of(error, subject.depth), subject.control)


def sets_of(subject: LayerSubject) -> dict[str, Decisions]:
    """The decisions that each window is measured on, by name."""
    found = {"noised": subject.noised, "held_out": subject.held_out}
    return found if subject.exact is None else {**found, "exact": subject.exact}


def accuracy(likeliest_n: Tensor, decisions: Decisions) -> float:
    """Share of decisions made as planted."""
    return float((likeliest_n == decisions.planted_n).double().mean())


def exact_share(likeliest_n: Tensor, decisions: Decisions) -> float:
    """Share of rows of which all decisions are made as planted."""
    wrong_n = (likeliest_n != decisions.planted_n).long()
    wrong_R = torch.zeros(len(decisions.ids_RT), dtype=torch.int64, device=wrong_n.device).scatter_add(0, decisions.row_n, wrong_n)
    return float((wrong_R == 0).double().mean())


def _of_window(name: str, window: Window, value: float) -> Finding:
    return Finding(name, value, window[0], window[1] - window[0] + 1)
