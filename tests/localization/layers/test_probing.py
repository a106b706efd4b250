"""Probes: many at once equal to one at a time, F1 by hand, and the events that follow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from layer_subjects import random_decisions, subject_of, tiny_gpt

from tinymem.errors import UserError
from tinymem.localization.layers.probe import ProbeOptions, Split, macro_f1, probed, split_by_group
from tinymem.localization.layers.probing import common_targets, initiation, label_probes, noise_probes, overtaking
from tinymem.runtime.progress import SilentBar

BAR = SilentBar()
QUICK = ProbeOptions(seeds=2, hidden=8, epochs=6, learning_rate=1e-2, batch_size=16)


def test_many_probes_equal_each_by_itself():
    generator = torch.Generator().manual_seed(0)
    states, labels = torch.randn(3, 40, 5, generator=generator), torch.randint(3, (40,), generator=generator)
    split = split_by_group(torch.arange(40), 0)
    together = probed(states, labels, 3, split, QUICK)
    for n in range(3):
        assert torch.equal(probed(states[n : n + 1], labels, 3, split, QUICK)[0], together[n])


def test_probes_learn_what_states_tell_and_nothing_else():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (300,), generator=generator)
    told = torch.randn(300, 6, generator=generator)
    states = torch.stack([told, told + 3 * labels[:, None]])
    split = split_by_group(torch.arange(300), 1)
    guess = probed(states, labels, 2, split, replace(QUICK, epochs=12))
    nothing, everything = macro_f1(guess[:, split.test], labels[split.test], 2)
    assert everything > 0.95 and nothing < 0.75


def test_f1_by_hand():
    guess, labels = torch.tensor([[0, 0, 1, 1, 2, 0]]), torch.tensor([0, 1, 1, 1, 0, 0])
    # class 0: 2 right, 3 named, 3 there; class 1: 2 right, 2 named, 3 there; class 2 is not among the labels
    assert float(macro_f1(guess, labels, 3)) == pytest.approx((2 * 2 / 6 + 2 * 2 / 5) / 2)


def test_no_group_is_in_two_parts():
    groups = torch.arange(50).repeat_interleave(3)
    split = split_by_group(groups, 3)
    parts = [set(groups[index].tolist()) for index in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [35, 5, 10] and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert isinstance(split, Split) and sum(map(len, (split.train, split.validation, split.test))) == 150


def test_events_by_hand():
    assert overtaking(torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.5, 0.41, 0.3])) == 3
    assert overtaking(torch.tensor([0.2, 0.5]), torch.tensor([0.5, 0.45])) is None
    assert initiation(torch.tensor([0.3, 0.8, 0.9, 0.88]), 0.25) == 3  # 90 % of the way is above 0.835
    assert initiation(torch.tensor([0.2, 0.1]), 0.25) is None


@pytest.mark.slow
def test_a_layers_weight_is_the_rise_of_its_f1():
    subject = replace(subject_of(tiny_gpt(0), tiny_gpt(1)), control=(0,))
    found = noise_probes(subject, QUICK, BAR)
    f1 = [f.score for f in found if f.name == "f1"]
    weights = [f.score for f in found if f.name == "weight"]
    assert len(f1) == 4 and len(weights) == 3 and [f.layer for f in found if f.name == "f1"] == [-1, 0, 1, 2]
    assert weights[1:] == pytest.approx([max(0, b - a) for a, b in pairwise(f1[1:])])
    alone = noise_probes(replace(subject, start=subject.model), QUICK, BAR)
    assert next(f.score for f in alone if f.name == "weight") == 0, "the first layer is compared with that of the beginning"
    assert found == noise_probes(subject, QUICK, BAR)


@pytest.mark.slow
def test_label_probes_tell_targets_and_need_enough_of_them():
    subject = subject_of(tiny_gpt(0), tiny_gpt(1))
    noised = random_decisions(20, 40, 7)
    found = label_probes(replace(subject, noised=noised), QUICK, BAR)
    assert {f.name for f in found} == {"f1_planted", "f1_original", "f1_clean", "overtaking", "initiation"}
    assert all(0 <= f.low <= f.score <= f.high <= 1 for f in found if f.layer is not None)
    few = noised.take(torch.arange(5))
    with pytest.raises(UserError, match="at least 10 noised and as many clean decisions between common targets, got 5 and"):
        common_targets(few, subject.clean)
