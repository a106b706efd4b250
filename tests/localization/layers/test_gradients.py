"""Forgetting gradients: against one decision at a time, and each correction by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from layer_subjects import random_decisions, subject_of, tiny_gpt

from tinymem.localization.layers.gradients import GradientOptions, forgetting_gradients, frozen, gradients
from tinymem.localization.layers.retraining import RetrainingOptions
from tinymem.localization.layers.subject import gpt_layers, predictions
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.runtime.progress import SilentBar

BAR = SilentBar()
QUICK = RetrainingOptions(epochs=1, learning_rate=1e-2)


@pytest.mark.parametrize("objective", ["loss", "logit"])
def test_the_mean_gradient_is_that_of_one_decision_at_a_time(objective):
    model, decisions = tiny_gpt(), random_decisions(6, 9, 1)
    found = gradients(gpt_layers(model), decisions, objective, rows=2)
    blocks = [list(block.parameters()) for block in model.transformer.h]
    expected = [[torch.zeros_like(p) for p in block] for block in blocks]
    for n in range(9):
        logits = model(decisions.ids_RT[decisions.row_n[n]][None])[0, decisions.at_n[n]].float()
        target = decisions.planted_n[n]
        loss = F.cross_entropy(logits[None], target[None]) if objective == "loss" else -logits[target]
        for block, sums in zip(blocks, expected, strict=True):
            for total, gradient in zip(sums, torch.autograd.grad(loss, block, retain_graph=True), strict=True):
                total += gradient / 9
    for mine, theirs in zip(found, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def norms(model, decisions, norm, minus):
    pair = [gradients(model, part) for part in decisions]
    return [
        sum(((n - c * minus).abs() ** norm).sum() for n, c in zip(*both, strict=True)) ** (1 / norm) for both in zip(*pair, strict=True)
    ]


def test_all_combinations_of_norm_and_corrections():
    subject = replace(subject_of(tiny_gpt(0), tiny_gpt(1)), control=(0, 1))
    before = fingerprint(subject.start.blocks[0])
    found = forgetting_gradients(subject, GradientOptions(head=QUICK), BAR)
    reference, parts = frozen(subject, QUICK, BAR), (subject.noised, subject.held_out)
    assert first_change(before, subject.start.blocks[0]) is None
    for norm in (1, 2):
        for minus in (True, False):
            for over in (True, False):
                raw = [float(v) for v in norms(subject.early, parts, norm, minus)]
                below = [float(v) for v in norms(reference, parts, norm, minus)] if over else [1.0] * 3
                scores = [a / b for a, b in zip(raw, below, strict=True)]
                published = (norm, minus, over) == (1, True, True)
                variant = {} if published else {"norm": f"L{norm}", "minus_clean": minus, "over_frozen": over}
                weights = [f.score for f in found if f.name == "weight" and f.variant == variant]
                assert weights == pytest.approx([s / sum(scores) for s in scores], rel=1e-5)
    assert sum(f.name == "accuracy@2" for f in found) == 8


def test_of_the_frozen_model_the_head_alone_is_trained():
    subject = subject_of(tiny_gpt(0), tiny_gpt(1))
    before = fingerprint(subject.start.head)
    made = frozen(subject, replace(QUICK, epochs=5), BAR)
    assert made.blocks is subject.start.blocks and first_change(before, subject.start.head) is None
    trained, untrained = (float(predictions(model, subject.training).planted_n.mean()) for model in (made, subject.start))
    assert trained > untrained
