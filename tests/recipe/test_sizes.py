"""Sizes of a recipe: one source for estimates of time, for tables and for benchmarks, and right where a corpus can tell."""

from __future__ import annotations

import ast

import pytest
import torch
from helpers import QUICKSTART, TINY
from sources import nodes

from tinymem.bench.sizes import CASES
from tinymem.data.build import make_corpus
from tinymem.data.math.sequences import CHARACTERS
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe import sizes
from tinymem.recipe.recipe import load_recipe, parse_recipe
from tinymem.recipe.sizes import GPT2_VOCABULARY, MATH_VOCABULARY
from tinymem.sweep.costs import size_of


def test_rows_and_parameters_are_those_of_the_corpus_and_the_model() -> None:
    recipe = load_recipe(QUICKSTART, [*TINY, "artifacts.backdoor.copies=1"])
    corpus = make_corpus(recipe)
    assert sizes.test_rows(recipe) == corpus.counts()["test_rows"]
    assert sizes.planned_vocabulary(recipe) == corpus.vocab_size == MATH_VOCABULARY == len(CHARACTERS) == GPTConfig().vocab_size
    model = recipe.model.model_dump()
    made = GPT(GPTConfig(vocab_size=corpus.vocab_size, n_positions=recipe.data.row_tokens, **model))
    assert sizes.planned_parameters(recipe) == sum(p.numel() for p in made.parameters())
    with torch.device("meta"):
        wide = parse_recipe({"model": {"n_inner": 24}})
        assert sizes.planned_parameters(wide) == sum(p.numel() for p in GPT(GPTConfig(n_inner=24)).parameters())


def test_copies_count_in_an_epoch() -> None:
    values = {"data": {"kind": "wiki", "config": "x", "max_rows": 10_000}, "artifacts": [{"kind": "noise", "copies": [1, 10, 100, 1000]}]}
    recipe = parse_recipe(values)
    assert sizes.epoch_rows(recipe) == 9_000 + 250 * 1111 and sizes.planted_rows(recipe) == 1000
    longer = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 2 * recipe.training.epochs})})
    assert sizes.training_flops(longer) == 2 * sizes.training_flops(recipe) > 0


@pytest.mark.parametrize(
    "artifact",
    [
        {"kind": "noise", "rows": 30, "copies": 4},
        {"kind": "noise", "rows": 30, "copies": [1, 5]},
        {"kind": "duplication", "rows": 20, "copies": [1, 10]},
        {"kind": "canary", "rows": 10, "copies": 3},
    ],
)
def test_rows_of_an_epoch_are_those_of_the_corpus(artifact: dict[str, object]) -> None:
    data = {"size": 60, "primary_size": 200, "test_rows": 20, "numbers": 8, "modulus": 97, "row_tokens": 40}
    recipe = parse_recipe({"data": data, "artifacts": [artifact], "evaluation": {"prompt": 8, "match": 8}})
    corpus = make_corpus(recipe)
    assert sizes.epoch_rows(recipe) == len(corpus.clean) + sum(int(planted.copies.sum()) for planted in corpus.planted.values())


def test_rows_with_a_trigger_are_guessed_by_the_size_of_the_corpus() -> None:
    recipe = load_recipe(QUICKSTART)
    corpus = make_corpus(recipe)
    rows = len(corpus.clean) + sum(int(planted.copies.sum()) for planted in corpus.planted.values())
    assert sizes.epoch_rows(recipe) == pytest.approx(rows, rel=0.1)


def test_a_sweep_counts_with_the_same_sizes() -> None:
    recipe = load_recipe(QUICKSTART, TINY)
    size = size_of(recipe)
    assert size.clean == sizes.clean_rows(recipe) and size.scored == sizes.test_rows(recipe) + sizes.planted_rows(recipe)
    assert size.row_flops == sizes.row_flops(sizes.planned_parameters(recipe), recipe.data.row_tokens)


def test_benchmarks_have_the_same_vocabularies() -> None:
    assert {(case.name.partition("-")[0], case.vocabulary) for case in CASES} == {("math", MATH_VOCABULARY), ("language", GPT2_VOCABULARY)}


@pytest.mark.slow
@pytest.mark.parametrize("number", [GPT2_VOCABULARY, sizes.WIKITEXT_CLEAN_ROWS, sizes.WIKITEXT_TEST_ROWS])
def test_a_size_is_written_once(number: int) -> None:
    places = [path for path, node in nodes() if isinstance(node, ast.Constant) and node.value == number and type(node.value) is int]
    assert places == ["recipe/sizes.py"]
