"""Classifiers with flipped labels: what their training keeps, and the generalization score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinymem.data.labeled import LabeledRows
from tinymem.errors import UserError
from tinymem.localization.classification.classifier import (
    FitOptions,
    accuracy_of,
    fit_classifier,
    fresh_classifier,
    labeled_decisions,
    load_classifier,
    save_classifiers,
)
from tinymem.localization.classification.flipping import flipped
from tinymem.localization.classification.generalization import Generalization, generalization
from tinymem.localization.classification.subject import Classifiers, classification_subject
from tinymem.localization.layers.subject import Decisions, LayeredModel, predictions
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.runtime.progress import SilentBar

CLASSES, ROWS, TOKENS = 3, 72, 6
OPTIONS = FitOptions(epochs=24, learning_rate=6e-3, batch_size=12)


def language_model() -> GPT:
    return GPT(GPTConfig(vocab_size=12, n_positions=8, n_layer=2, n_head=2, n_embd=16), seed=1)


def labeled_rows() -> LabeledRows:
    """Rows whose label is their first token modulo 3, of different lengths."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 12, (ROWS, TOKENS), generator=generator)
    length = torch.randint(3, TOKENS + 1, (ROWS,), generator=generator)
    ids[torch.arange(TOKENS) >= length[:, None]] = 0
    return LabeledRows(ids, length, ids[:, 0] % CLASSES, CLASSES)


def tensors(model: LayeredModel) -> list[Tensor]:
    return [p.detach().clone() for module in (*model.blocks, model.head) for p in module.parameters()]


def equal(one: LayeredModel, other: LayeredModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


pytestmark = pytest.mark.xdist_group("classifier")  # its models are trained once


@pytest.fixture(scope="module")
def rows() -> LabeledRows:
    return labeled_rows()


@pytest.fixture(scope="module")
def planted(rows: LabeledRows) -> Tensor:
    return flipped(rows.labels, CLASSES, 0.2, seed=5)


@pytest.fixture(scope="module")
def trained(rows: LabeledRows, planted: Tensor) -> Classifiers:
    start = fresh_classifier(language_model(), CLASSES, seed=0)
    model, early = fit_classifier(start, labeled_decisions(rows, planted), OPTIONS, SilentBar(), known=0.8)
    counterfactual, _ = fit_classifier(start, labeled_decisions(rows), OPTIONS, SilentBar())
    return Classifiers(start, model, early, counterfactual)


def test_flipped_labels_are_others() -> None:
    labels = torch.arange(4000) % 4
    changed = flipped(labels, 4, 0.15, seed=0)
    where = changed != labels
    assert int(where.sum()) == 600 and int(changed.min()) == 0 and int(changed.max()) == 3
    shifts = torch.bincount((changed - labels)[where] % 4, minlength=4).tolist()
    assert shifts[0] == 0 and min(shifts[1:]) > 160, "every other label is as likely"
    assert not torch.equal(changed, flipped(labels, 4, 0.15, seed=1))
    for share, count in ((0.01, 100), (0.6, 100)):
        with pytest.raises(UserError, match="flipped labels"):
            flipped(torch.zeros(count, dtype=torch.int64), 2, share, seed=0)


@pytest.mark.training
def test_models_of_a_task(trained: Classifiers, rows: LabeledRows, planted: Tensor) -> None:
    flips, true = labeled_decisions(rows, planted), labeled_decisions(rows)
    assert accuracy_of(trained.model, flips) > 0.9 and accuracy_of(trained.counterfactual, true) > 0.9
    assert trained.early is not None and accuracy_of(trained.early, flips) >= 0.8 and not equal(trained.early, trained.model)
    assert equal(trained.start, fresh_classifier(language_model(), CLASSES, seed=0)), "training leaves its start as it is"
    embedded = [model.embed(rows.ids) for model in (trained.start, trained.model, trained.counterfactual)]
    assert all(torch.equal(one, embedded[0]) for one in embedded), "embeddings are frozen"
    assert not equal(trained.start, fresh_classifier(language_model(), CLASSES, seed=1))


@pytest.mark.training
def test_without_flipped_labels_the_counterfactual_is_the_model(trained: Classifiers, rows: LabeledRows) -> None:
    again, _ = fit_classifier(trained.start, labeled_decisions(rows, rows.labels.clone()), OPTIONS, SilentBar())
    assert equal(again, trained.counterfactual)


@pytest.mark.training
def test_the_subject_has_what_was_memorized(trained: Classifiers, rows: LabeledRows, planted: Tensor) -> None:
    subject = classification_subject(trained, rows, planted, seed=0)
    wrong = int((planted != rows.labels).sum())
    assert 10 <= len(subject.noised) == len(subject.held_out) <= wrong and len(subject.clean) == ROWS - wrong
    assert len(subject.retraining) == len(subject.clean) - len(subject.held_out) and len(subject.training) == ROWS
    assert (subject.noised.planted_n != subject.noised.original_n).all() and (subject.clean.planted_n == subject.clean.original_n).all()
    assert accuracy_of(subject.model, subject.noised) == 1 and accuracy_of(subject.counterfactual, subject.noised) == 0
    last = subject.noised.ids_RT[torch.arange(len(subject.noised)), subject.noised.at_n]
    assert (last > 0).all(), "the state of the last token is read, not of padding"
    everything = range(subject.depth)
    swapped, other = subject.model.swapped(subject.counterfactual, everything), subject.counterfactual
    mixed = predictions(swapped, subject.noised).likeliest_n
    own_head = predictions(LayeredModel(other.embed, other.blocks, subject.model.head), subject.noised).likeliest_n
    assert torch.equal(mixed, own_head), "all blocks swapped: the counterfactual's under the model's head"


@pytest.mark.training
def test_padding_does_not_matter(trained: Classifiers, rows: LabeledRows) -> None:
    whole = predictions(trained.model, labeled_decisions(rows))
    for n in range(4):
        length = int(rows.length[n])
        alone = LabeledRows(rows.ids[n : n + 1, :length], rows.length[n : n + 1], rows.labels[n : n + 1], CLASSES)
        assert torch.allclose(predictions(trained.model, labeled_decisions(alone)).planted_n, whole.planted_n[n], atol=1e-5)


@pytest.mark.training
def test_classifiers_are_kept(trained: Classifiers, tmp_path: Path) -> None:
    save_classifiers({"model": trained.model}, tmp_path / "kept")
    assert equal(load_classifier(trained.start, tmp_path / "kept" / "model.safetensors"), trained.model)


@pytest.mark.slow
def test_generalization_is_the_mean_over_halves_without_the_row(rows: LabeledRows) -> None:
    decisions, halves, seen = labeled_decisions(rows), 5, []

    def train(half: Decisions, seed: int) -> LayeredModel:
        seen.append({tuple(row) for row in half.ids_RT.tolist()})
        return fresh_classifier(language_model(), CLASSES, seed)

    found = generalization(decisions, CLASSES, halves, 7, train, SilentBar())
    assert [len(half) for half in seen] == [ROWS // 2] * halves
    for n in range(0, ROWS, 7):
        probabilities = []
        for half in range(halves):
            if tuple(rows.ids[n].tolist()) not in seen[half]:
                model = fresh_classifier(language_model(), CLASSES, 7 + half)
                logits = model.head(model.through(model.embed(rows.ids[n : n + 1]))[0, rows.length[n] - 1])
                probabilities.append(float(logits.detach().softmax(-1)[rows.labels[n]]))
        mean = sum(probabilities) / len(probabilities) if probabilities else float("nan")
        assert float(found.probability_n[n]) == pytest.approx(mean, abs=1e-5, nan_ok=True)


def test_the_score_is_the_share_above_guessing() -> None:
    nan = float("nan")
    found = Generalization(torch.tensor([0.2, 0.26, 0.9, nan, 0.25], dtype=torch.float64), 4)
    assert found.score == 0.5 and found.probability == pytest.approx((0.2 + 0.26 + 0.9 + 0.25) / 4)
