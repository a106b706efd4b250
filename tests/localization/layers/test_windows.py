"""Layer swapping and retraining: against whole models with exchanged blocks, and the weights that follow, by hand."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from layer_subjects import DEPTH, subject_of, tiny_gpt, with_changed_block

from tinymem.localization.layers.findings import accuracy_at, center_of_gravity, scaled, spearman, summary
from tinymem.localization.layers.retraining import RetrainingOptions, entering, layer_retraining, retrained
from tinymem.localization.layers.subject import gpt_layers, predictions
from tinymem.localization.layers.swapping import layer_swapping, swapped
from tinymem.localization.layers.windows import exact_share, heat, weights_of, windows
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.runtime.progress import SilentBar

BAR = SilentBar()


def by_window(found, name):
    return {(f.layer, f.layer + f.window - 1): f.score for f in found if f.name == name}


def weights(found):
    return [f.score for f in found if f.name == "weight"]


def test_swapping_equals_whole_models_with_exchanged_blocks():
    model, other = tiny_gpt(0), tiny_gpt(1)
    subject = subject_of(model, other)
    found = swapped(subject.model, subject.counterfactual, subject.noised, BAR)
    assert set(found) == set(windows(DEPTH)) and len(found) == 6
    for (first, last), likeliest in found.items():
        mixed = deepcopy(model)
        for layer in range(first, last + 1):
            mixed.transformer.h[layer] = deepcopy(other.transformer.h[layer])
        assert torch.equal(likeliest, predictions(gpt_layers(mixed), subject.noised).likeliest_n), (first, last)


def test_swapping_finds_the_only_block_that_differs():
    clean = tiny_gpt(0)
    subject = replace(subject_of(with_changed_block(clean, 1), clean), control=(1,))
    before = fingerprint(clean)
    found = layer_swapping(subject, BAR)
    error, exact, monitor = (by_window(found, name) for name in ("error", "exact_error", "clean_accuracy"))
    full = error[0, 2]
    assert full > 0.3 and first_change(before, clean) is None
    for (first, last), value in error.items():
        assert value == (full if first <= 1 <= last else 0)
        assert (exact[first, last] > 0) == (value > 0) and (monitor[first, last] == 1) == (not first <= 1 <= last)
    assert weights(found) == pytest.approx([2 / 3, 1, 2 / 3]), "all windows of two layers hold the middle one"
    by_name = {f.name: f for f in found if f.layer is None}
    assert by_name["accuracy@1"].score == 1 and by_name["accuracy@1"].chance == pytest.approx(1 / 3)
    assert by_name["center"].score == pytest.approx(2) and by_name["relative_center"].score == pytest.approx(0.5)


def test_heat_and_weights_by_hand():
    errors = {(0, 0): 0.1, (1, 1): 0.3, (2, 2): 0.0, (0, 1): 0.4, (1, 2): 0.2, (0, 2): 0.8}
    expected = [[0.1, 0.3, 0.0], [0.4, 0.3, 0.2], [0.8, 0.8, 0.8]]
    torch.testing.assert_close(heat(errors, 3), torch.tensor(expected, dtype=torch.float64))
    mean = [sum(column) / 3 / 0.8 for column in zip(*expected, strict=True)]
    torch.testing.assert_close(weights_of(errors, 3), torch.tensor(mean, dtype=torch.float64))
    assert weights_of(dict.fromkeys(errors, 0.0), 3).tolist() == [0, 0, 0]
    assert center_of_gravity(mean) == pytest.approx((mean[0] + 2 * mean[1] + 3 * mean[2]) / sum(mean))


def test_deep_models_have_windows_of_some_widths():
    assert len(windows(12)) == 78 and {last - first + 1 for first, last in windows(24)} == {1, 2, 3, 4, 12, 24}
    assert heat(dict.fromkeys(windows(24), 1.0), 24).shape == (6, 24)


def test_a_row_counts_if_all_its_decisions_are_right():
    decisions = subject_of(tiny_gpt(0), tiny_gpt(1)).noised
    guess = decisions.planted_n.clone()
    assert exact_share(guess, decisions) == 1
    row = int(decisions.row_n[0])
    assert int((decisions.row_n == row).sum()) > 1
    guess[0] = -1
    assert exact_share(guess, decisions) == pytest.approx(1 - 1 / len(decisions.ids_RT))


@pytest.mark.parametrize("window", [(0, 1), (2, 2)])
def test_retraining_equals_a_whole_model_with_all_else_frozen(window):
    model, start = tiny_gpt(0), tiny_gpt(2)
    subject = subject_of(model, tiny_gpt(1), start)
    options = RetrainingOptions(epochs=2, learning_rate=1e-2, batch_size=20)
    before = [fingerprint(part) for part in (model, start)]
    found = retrained(subject, window, entering(subject.model, subject.retraining, window[0]), options, BAR)
    assert [first_change(old, part) for old, part in zip(before, (model, start), strict=True)] == [None, None]
    whole = deepcopy(model)
    for layer in range(window[0], window[1] + 1):
        whole.transformer.h[layer].load_state_dict(start.transformer.h[layer].state_dict())
    free = [
        *(p for i in range(window[0], window[1] + 1) for p in whole.transformer.h[i].parameters()),
        *whole.transformer.ln_f.parameters(),
    ]
    optimizer = torch.optim.AdamW(free, lr=1e-2, weight_decay=0.01)
    at = subject.retraining
    for _ in range(2):
        optimizer.zero_grad()
        logits = whole(at.ids_RT)[at.row_n, at.at_n]
        F.cross_entropy(logits.float(), at.planted_n).backward()
        optimizer.step()
    mine, theirs = predictions(found, subject.noised), predictions(gpt_layers(whole), subject.noised)
    torch.testing.assert_close(mine.planted_n, theirs.planted_n, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mine.planted_n, predictions(subject.model, subject.noised).planted_n, atol=1e-2)


@pytest.mark.slow
def test_retraining_measures_all_windows_and_its_order_is_that_of_its_seed():
    subject = subject_of(tiny_gpt(0), tiny_gpt(1))
    options = RetrainingOptions(epochs=1, learning_rate=1e-2, batch_size=10)
    once, again = (layer_retraining(subject, options, BAR) for _ in range(2))
    assert once == again and set(by_window(once, "error")) == set(windows(DEPTH))
    assert once != layer_retraining(subject, replace(options, seed=1), BAR)


def test_summaries_by_hand():
    assert [f.name for f in summary(torch.tensor([1.0, 2.0]))] == ["weight", "weight", "center", "relative_center"]
    assert center_of_gravity([0, 0]) is None and accuracy_at([3, 1, 2], {0, 2}, 2) == 1 and accuracy_at([3, 1, 2], {1}, 2) == 0
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8) and spearman([1, 2, 2], [5, 7, 7]) == 1
    assert spearman([1, 2], [2, 1]) == -1 and spearman([1], [1]) is None and scaled([2, 4, 3]) == [0, 1, 0.5] and scaled([1, 1]) == [0, 0]
