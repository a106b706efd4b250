"""Every regularizer, and all together: a run that was stopped ends bit for bit like one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, Killed, die_after_first_save, equal_weights, timeless

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.evaluation.evaluator import Evaluator
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.training.loop import Trained, train
from tinymem.training.state import load_state

KINDS = {
    "spectral": ["{kind: spectral-norm, strength: 0.1}"],
    "truncation": ["{kind: loss-truncation, drop: 0.2, window: 100}"],
    "tied": ["{kind: example-tied-dropout, fixed: 0.5, memory: 0.3}"],
    "sinks": ["{kind: mem-sinks, salt_layers: true, tied: planted}"],
    "goldfish": ["{kind: goldfish, width: 3, k: 3}"],
}
KINDS["all"] = [text for kind, texts in KINDS.items() if kind != "tied" for text in texts]


def case_of(kind: str) -> tuple[Recipe, Corpus]:
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=3", f"training.regularizers=[{', '.join(KINDS[kind])}]"])
    return recipe, make_corpus(recipe)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=3"])
    return train(recipe, make_corpus(recipe), tmp_path_factory.mktemp("plain"))


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed(kind: str, plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, corpus = case_of(kind)
    whole = train(recipe, corpus, tmp_path / "whole")
    assert not equal_weights(whole.model, plain.model), "the regularizer did nothing"
    die_after_first_save(monkeypatch)
    with pytest.raises(Killed):
        train(recipe, corpus, tmp_path / "cut")
    again = train(recipe, corpus, tmp_path / "cut")
    assert equal_weights(again.model, whole.model)
    assert timeless(again.curve)[1:] == timeless(whole.curve)[1:]


@pytest.mark.training
@pytest.mark.parametrize("kind", ["tied", "sinks"])
def test_what_is_saved_is_a_plain_gpt2(kind: str, tmp_path: Path) -> None:
    recipe, corpus = case_of(kind)
    trained = train(recipe, corpus, tmp_path / "run")
    save_checkpoint(trained.model, tmp_path / "checkpoint", metadata={}, tokenizer_files={})
    loaded: Any = load_checkpoint(tmp_path / "checkpoint").model
    ids = torch.from_numpy(corpus.clean[:5].astype("int64"))
    assert torch.equal(loaded(ids), trained.model(ids))
    sinks_FD = trained.model.transformer.h[0].mlp.c_proj.weight.T[-10:]  # type: ignore[union-attr]
    assert sinks_FD.eq(0).all(), "sinks are off"
    measured = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol).measure(trained.model)
    assert trained.curve[-1].accuracy == pytest.approx(measured.accuracy.share, abs=0.01)
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint").eval()
    assert torch.allclose(theirs(ids).logits, trained.model(ids), atol=1e-5)


@pytest.mark.training
def test_state_of_the_regularizers_is_in_the_resume_point(tmp_path: Path) -> None:
    recipe, corpus = case_of("all")
    train(recipe, corpus, tmp_path)
    state = load_state(tmp_path / "state")
    assert state is not None
    expected = {f"parts.loss_truncation.{n}" for n in ("losses_W", "seen", "since", "threshold")}
    assert set(state.regularizers) == expected | {"parts.spectral_norm.heads", "parts.spectral_norm.feed_forward"}
    rows = len(corpus.training_rows()[1])
    assert state.regularizers["parts.loss_truncation.seen"] == 3 * rows
