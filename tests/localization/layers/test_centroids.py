"""Centroid analysis: places on the line between two centroids, and the events that follow, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from layer_subjects import random_decisions, subject_of, tiny_gpt

from tinymem.localization.layers.centroids import centroid_analysis, coordinates, crossing, initiation, margins, pairs_of_targets
from tinymem.localization.layers.subject import predictions, states
from tinymem.runtime.progress import SilentBar


def test_places_on_the_line():
    a, b = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[3.0, 0.0]]])
    points = torch.tensor([[[1.0, 5.0], [3.0, -2.0], [2.0, 0.0], [5.0, 1.0]]])
    assert coordinates(points, a, b).tolist() == [[0, 1, 0.5, 2]]
    assert coordinates(points, a, a).tolist() == [[0, 0, 0, 0]]


def test_crossing_is_the_last_fall_below_the_middle():
    assert crossing(torch.tensor([0.9, 0.4, 0.6, 0.3, 0.1])) == 3
    assert crossing(torch.tensor([0.9, 0.8, 0.6])) is None and crossing(torch.tensor([0.2, 0.1])) is None


def test_initiation_is_the_layer_from_which_on_classes_are_apart():
    near, far = torch.linspace(0, 0.4, 9), torch.linspace(0.6, 1, 9)
    apart, mixed = (near, far), (torch.linspace(0, 1, 9), torch.linspace(0, 1, 9))
    behind = [mixed, apart, mixed, apart, apart]  # the embedding, then four layers
    a, b = (torch.stack([pair[k] for pair in behind]) for k in range(2))
    assert initiation(a, b) == 3
    assert initiation(a[:3], b[:3]) is None and initiation(a[[0, 1]], b[[0, 1]]) == 1


def test_coordinates_of_decisions_against_a_plain_loop():
    subject = subject_of(tiny_gpt(0), tiny_gpt(1))
    noised = random_decisions(20, 40, 7)
    pairs = list(pairs_of_targets(subject.model, noised, subject.clean))
    assert pairs
    hidden, clean = states(subject.model, noised), states(subject.model, subject.clean)
    for pair in pairs:
        for layer in range(4):
            a = clean[layer][subject.clean.planted_n == pair.planted].mean(0)
            b = clean[layer][subject.clean.planted_n == pair.original].mean(0)
            mine = [n for n in range(40) if (noised.planted_n[n], noised.original_n[n]) == (pair.planted, pair.original)]
            for place, n in zip(pair.noised_Pn[layer], mine, strict=True):
                assert float(place) == pytest.approx(float((hidden[layer, n] - a) @ (b - a) / ((b - a) @ (b - a))), rel=1e-5, abs=1e-6)
        assert pair.a_Pn.mean(1).tolist() == pytest.approx([0] * 4, abs=1e-6) and pair.b_Pn.mean(1).tolist() == pytest.approx([1] * 4)


def test_the_last_margin_is_the_models_own():
    subject = subject_of(tiny_gpt(0), tiny_gpt(1))
    found = predictions(subject.model, subject.noised)
    torch.testing.assert_close(margins(subject.model, subject.noised)[-1], found.planted_n - found.original_n, atol=1e-5, rtol=1e-5)


def test_halves_are_swapped_and_reported_apart():
    subject = replace(subject_of(tiny_gpt(0), tiny_gpt(1)), noised=random_decisions(20, 40, 7))
    found = centroid_analysis(subject, SilentBar())
    assert {str(f.variant.get("swapped")) for f in found} == {"None", "bottom", "top"}
    names = {f.name for f in found if not f.variant}
    assert names == {"margin", "margin_crossing", "noised", "planted", "original", "pairs", "crossed", "crossing", "initiation"}
    same = centroid_analysis(replace(subject, counterfactual=subject.model), SilentBar())
    values = [[f.score for f in same if f.variant.get("swapped") == half] for half in (None, "bottom", "top")]
    assert values[0] == values[1] == values[2]
