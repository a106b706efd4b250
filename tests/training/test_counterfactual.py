"""The counterfactual of a model: the same seed, initialization, order and steps, on the clean counterparts of the planted rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights, sets, tinymem

from tinymem.errors import UserError
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.runs.dry_run import estimate
from tinymem.runs.pipeline import Run, is_trained, open_run, train_only
from tinymem.runtime.files import content_id

BARE = ["artifacts=[]", "training.epochs=1"]
BOTH = "counterfactual=true"


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe(QUICKSTART, [*(SMALLER if BARE[0] not in overrides else _without_artifacts()), *overrides])


def _without_artifacts() -> list[str]:
    return [override for override in SMALLER if not override.startswith("artifacts")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_only(recipe_of(BOTH), runs=tmp_path_factory.mktemp("runs"), device="cpu")


def counterfactual_of(run: Run) -> Run:
    recipe = run.recipe.counterfactual_recipe()
    assert recipe is not None
    return open_run(run.path.parent / recipe.run_id())


def test_the_key_moves_no_id_but_the_counterfactuals() -> None:
    plain, both, alone = recipe_of(), recipe_of(BOTH), recipe_of("counterfactual=only")
    assert plain.run_id() == both.run_id() and plain.model_key() == both.model_key() and "counterfactual" not in plain.model_key()
    assert alone.run_id() != plain.run_id() and alone.counterfactual_of() == content_id(plain.model_key())
    assert plain.counterfactual_recipe() is None and alone.counterfactual_recipe() is None and both.counterfactual_of() is None
    made = both.counterfactual_recipe()
    assert made is not None and made.model_key() == alone.model_key() and not made.mitigation.methods
    assert made.run_id().startswith(f"{both.run_id()}-counterfactual-")


def test_another_value_is_refused() -> None:
    with pytest.raises(UserError, match="counterfactual"):
        recipe_of("counterfactual=clean")


@pytest.mark.training
def test_a_checkpoint_of_its_own_names_the_model(trained: Run) -> None:
    other = counterfactual_of(trained)
    stored = json.loads((other.checkpoint / "tinymem.json").read_text())
    assert stored["counterfactual_of"] == content_id(trained.recipe.model_key()) and stored["recipe"]["counterfactual"] == "only"
    assert stored["corpus_sha256"] == trained.corpus().sha256() == other.corpus().sha256()
    assert "counterfactual_of" not in json.loads((trained.checkpoint / "tinymem.json").read_text())
    assert not equal_weights(trained.model(), other.model())
    first = [json.loads((run.path / "training" / "metrics.jsonl").read_text().splitlines()[0]) for run in (trained, other)]
    assert first[0]["accuracy"] == first[1]["accuracy"], "both start from the same weights"


@pytest.mark.training
def test_clean_counterparts_lie_in_the_places_of_planted_rows(trained: Run) -> None:
    corpus = trained.corpus()
    (rows, index), (clean, clean_index) = corpus.training_rows(), corpus.training_rows(counterfactual=True)
    assert np.array_equal(index, clean_index) and rows.dtype == clean.dtype
    start = len(corpus.clean)
    assert np.array_equal(rows[:start], clean[:start])
    for planted in corpus.planted.values():
        end = start + int(planted.trained.sum())
        assert np.array_equal(clean[start:end], planted.clean[planted.trained]) and np.array_equal(
            rows[start:end], planted.ids[planted.trained]
        )
        assert (rows[start:end] != clean[start:end]).any()
        start = end
    assert start == len(clean)


@pytest.mark.training
def test_without_artifacts_it_is_the_model_bit_for_bit(tmp_path: Path) -> None:
    run = train_only(recipe_of(*BARE, BOTH), runs=tmp_path, device="cpu")
    assert equal_weights(run.model(), counterfactual_of(run).model())


@pytest.mark.training
def test_a_dry_run_counts_both(trained: Run, tmp_path: Path) -> None:
    assert [one.steps for one in estimate([trained.recipe], trained.path.parent, "cpu", whole=False)] == [[], []]
    model, other = estimate([trained.recipe], tmp_path, "cpu", whole=True)
    assert model.steps[:2] == other.steps == ["make the corpus", "train 2 epochs"] and model.seconds > other.seconds > 0


@pytest.mark.training
def test_train_makes_what_is_missing_and_prints_both(trained: Run) -> None:
    other, runs = counterfactual_of(trained), trained.path.parent
    words = ("train", QUICKSTART, *sets([*SMALLER, BOTH]), "--runs", runs, "--device", "cpu")
    assert is_trained(runs, trained.recipe)
    before = load_checkpoint(other.checkpoint).model.state_dict()
    (other.checkpoint / "tinymem.json").unlink()
    assert not is_trained(runs, trained.recipe)
    done = tinymem(*words)
    assert done.code == 0 and done.out.split() == [str(trained.checkpoint), str(other.checkpoint)]
    assert all(torch.equal(before[name], value) for name, value in load_checkpoint(other.checkpoint).model.state_dict().items())
