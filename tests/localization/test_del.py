"""DEL Benchmark: every number against a plain loop over targets and rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.deletion import delete, located, published_perplexity, suffix_accuracy
from tinymem.models.adapters import logits, neuron_layers
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.testing import FAMILIES, tiny_case


def case(family="gpt"):
    model, data = tiny_case(family)
    forget = Rows.of(data.forget.ids[:4], torch.tensor([5, 3, 1, 4]), torch.tensor([11, 12, 9, 12]))
    return model.double().eval(), forget, data.retain


def letters(ids):
    return "".join(chr(97 + i) for i in ids)


def edits(first, second):
    """Levenshtein's distance by its recursion over prefixes."""
    line = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, line = line, [i]
        for j, b in enumerate(second, 1):
            line.append(min(before[j] + 1, line[-1] + 1, before[j - 1] + (a != b)))
    return line[-1]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_number_equals_that_of_a_plain_loop(family):
    pytest.importorskip("rapidfuzz", reason="texts are compared with rapidfuzz")
    model, rows, text = case(family)
    chosen = located(torch.rand(4, 2, 64, generator=torch.Generator().manual_seed(1)), 0.25)
    before = fingerprint(model)
    found = delete(model, rows, text, chosen, decode=letters)
    assert first_change(before, model) is None and found.dropped == 16
    for target in range(4):
        edited = tiny_case(family)[0].double().eval()
        for layer, chosen_F in zip(neuron_layers(edited), chosen[target], strict=True):
            layer.values_FD()[chosen_F] = 0
        for n in range(4):
            start, end, ids = int(rows.prompt[n]), int(rows.end[n]), rows.ids[n]
            guess = logits(edited, ids[None])[0].argmax(-1)
            right = [int(guess[t - 1]) == int(ids[t]) for t in range(start, end)]
            assert found.accuracy_NS[target, n] == pytest.approx(sum(right) / len(right))
            written = [*ids[:start].tolist(), *guess[start - 1 : end - 1].tolist()]
            assert found.distance_NS[target, n] == edits(letters(written), letters(ids[:end].tolist()))
        for n in range(len(text)):
            loss = F.cross_entropy(logits(edited, text.ids[n][None])[0, :-1].float(), text.ids[n, 1:])
            assert found.nll_NR[target, n] == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(found.before.accuracy_S, suffix_accuracy(model, rows))


def test_changes_are_those_of_the_confusion_matrix():
    model, rows, text = case()
    chosen = located(torch.rand(4, 2, 64, generator=torch.Generator().manual_seed(1)), 0.5, skip_bottom=False)
    found = delete(model, rows, text, chosen, decode=None)
    changes, matrix = found.changes(), found.confusion_NS
    torch.testing.assert_close(changes["self_accuracy"], matrix.diagonal())
    torch.testing.assert_close(changes["other_accuracy"], (matrix.sum(1) - matrix.diagonal()) / 3)
    mean = found.nll_NR.double().mean(1)
    torch.testing.assert_close(changes["text_perplexity"], mean.exp() - found.before.nll_R.double().mean().exp())
    summary = found.summary()
    assert "self_distance" not in summary, "no decoder, no distance"
    assert all(low <= value <= high for value, low, high in summary.values())


def test_targets_may_be_some_of_the_rows():
    model, rows, text = case()
    scores = torch.rand(4, 2, 64, generator=torch.Generator().manual_seed(1))
    whole = delete(model, rows, text, located(scores, 0.25))
    part = delete(model, rows, text, located(scores, 0.25)[2:], targets=torch.tensor([2, 3]))
    torch.testing.assert_close(part.changes()["self_accuracy"], whole.changes()["self_accuracy"][2:])
    torch.testing.assert_close(part.changes()["other_accuracy"], whole.changes()["other_accuracy"][2:])


def test_the_published_perplexity_is_2_to_a_loss_in_nats():
    assert float(published_perplexity(torch.full((1, 300), math.log(28.4)))) == pytest.approx(10.17, abs=0.01)
    losses = torch.arange(6.0)[None]
    assert float(published_perplexity(losses, batch=4)) == pytest.approx((2**1.5 + 2**4.5) / 2)


def test_the_bottom_layer_stays_unless_asked_for():
    scores = torch.rand(3, 2, 64)
    assert located(scores, 0.05).sum((0, 2)).tolist() == [0, 9] and located(scores, 0.05, skip_bottom=False).sum((0, 2)).tolist() == [9, 9]
    with pytest.raises(UserError, match=r"expected ratios of at least one neuron a layer, got 0.001 of 64; the smallest is 0.0156"):
        located(scores, 0.001)
    with pytest.raises(UserError, match="at least 2 layers"):
        located(scores[:, :1], 0.05)
    model, rows, text = case()
    with pytest.raises(UserError, match="at least 2 memorized rows"):
        delete(model, rows.take(torch.tensor([0])), text, located(scores[:1], 0.05))
