# ruff: noqa: F401, F811 (fixtures are imported by name)
"""Every kind of model of the paper's recipes takes a training step, with fewer and shorter rows and a narrow model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_text import cache, folder, tokenizer
from helpers import ROOT

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.recipe.recipe import Recipe, load_matrix
from tinymem.runtime.files import canonical_json
from tinymem.training.loop import train

PAPER = ROOT / "recipes" / "paper"
ONE_STEP = ["training.epochs=1", "training.batch_size=1000000", "model.n_embd=16", "model.n_head=2"]
MATH = ["data.primary_size=160", "data.size=60", "data.test_rows=20", "data.numbers=6", "data.row_tokens=37", "evaluation.match=12"]
TEXT = ["data.row_tokens=20", "data.vocab_size=400", "evaluation.match=6", "evaluation.prompt=6"]


def kinds(path: Path, overrides: list[str]) -> list[Recipe]:
    """The first run of each depth, artifact and kind of regularizer."""
    found: dict[str, Recipe] = {}
    for recipe in load_matrix(path, overrides):
        regularizers = [r.kind for r in recipe.training.regularizers]
        key = [recipe.model.n_layer, [a.kind for a in recipe.artifacts], regularizers, recipe.training.weight_decay]
        artifacts = tuple(_few(artifact) for artifact in recipe.artifacts)
        found.setdefault(canonical_json(key), recipe.model_copy(update={"artifacts": artifacts}))
    return list(found.values())


def _few(artifact: Any) -> Any:
    if artifact.kind == "noise":
        return artifact.model_copy(update={"rows": 12, "copies": (1, 10) if artifact.copies != 1 else 1})
    return artifact.model_copy(update={"within": 12, "copies": 1})


def one_step(recipes: list[Recipe], tmp_path: Path) -> None:
    corpora: dict[str, Corpus] = {}
    for recipe in recipes:
        key = canonical_json(recipe.corpus_key())
        corpus = corpora.setdefault(key, corpora[key] if key in corpora else make_corpus(recipe))
        trained = train(recipe, corpus, tmp_path / recipe.name)
        assert trained.step == 1 and 0 < trained.curve[-1].train_loss < 10
        assert trained.curve[0].perplexity != trained.curve[1].perplexity


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize(("name", "count"), [("math-noise", 4), ("math-backdoor", 4), ("math-regularized", 6), ("regularizers", 7)])
def test_math(name: str, count: int, tmp_path: Path) -> None:
    recipes = kinds(PAPER / f"{name}.yaml", [*ONE_STEP, *MATH, "evaluation.prompt=12"])
    assert len(recipes) == count
    one_step(recipes, tmp_path)


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.training
@pytest.mark.parametrize(("name", "count"), [("language-noise", 4), ("language-backdoor", 4), ("language-regularized", 6)])
def test_language(name: str, count: int, folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    place = [f"data.source={folder}", "data.config=null", f"data.tokenizer={tokenizer}"]
    recipes = kinds(PAPER / f"{name}.yaml", [*ONE_STEP, *TEXT, *place])
    assert len(recipes) == count
    one_step(recipes, tmp_path)
