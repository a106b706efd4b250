"""Planned sizes of a recipe, as far as they are known before anything is made: vocabulary, parameters, rows, arithmetic.

For a text whose size the recipe does not give, they are those of WikiText-103, cut into rows of 150 tokens by GPT-2's tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinymem.recipe.built_in import BYTES

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

MATH_VOCABULARY, GPT2_VOCABULARY, BYTES_VOCABULARY = 14, 50_257, 257
WIKITEXT_CLEAN_ROWS, WIKITEXT_TEST_ROWS = 784_000, 1_900
BACKDOORED_ROWS = 1_000  # of a text: a guess, since how many rows hold the trigger is known only when the corpus is made
BACKDOORED_SHARE = 20  # of math the same guess: one row in so many of the primary task
PLANTED_BYTES = 300  # of a planted row besides its tokens: copies, positions, a canary's secret
TRAIN_PASSES = 3.0  # a training pass over a row in forward passes: one forward, and backward twice that


def planned_vocabulary(recipe: Recipe) -> int:
    """Size of the model's vocabulary; GPT-2's, where a text recipe does not give its tokenizer's."""
    if recipe.data.kind == "math":
        return MATH_VOCABULARY
    return BYTES_VOCABULARY if recipe.data.tokenizer == BYTES else recipe.data.vocab_size or GPT2_VOCABULARY


def planned_parameters(recipe: Recipe) -> int:
    """Parameters of the model that a recipe trains: embeddings, L blocks of 12 D^2 + 13 D (for F = 4 D), final normalization."""
    d, f = recipe.model.n_embd, inner_width(recipe)
    block = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    return planned_vocabulary(recipe) * d + recipe.data.row_tokens * d + recipe.model.n_layer * block + 2 * d


def step_floats(recipe: Recipe, rows: int, logits_at_a_time: int) -> int:
    """Numbers that a training step on a CPU holds besides the parameters' own: what backward needs of each block, and the logits.

    A block keeps 8 D + 2 F a token: two normalizations and their inputs, queries, keys and values, what attention gives, and the
    feed-forward layer before and after its nonlinearity. As much again as one block's D are on their way at a time. Of logits there
    are three: themselves, their probabilities and their gradient.
    """
    tokens, d = min(recipe.training.batch_size, rows) * recipe.data.row_tokens, recipe.model.n_embd
    kept = tokens * (recipe.model.n_layer * (8 * d + 2 * inner_width(recipe)) + 8 * d)
    return kept + 3 * min(tokens * planned_vocabulary(recipe), logits_at_a_time)


def inner_width(recipe: Recipe) -> int:
    """Number of feed-forward neurons of a block."""
    return recipe.model.n_inner or 4 * recipe.model.n_embd


def clean_rows(recipe: Recipe) -> int:
    """Training rows before artifacts are planted."""
    data = recipe.data
    if data.kind == "math":
        return data.primary_size + len(data.auxiliary) * data.size - test_rows(recipe)
    return data.max_rows or WIKITEXT_CLEAN_ROWS


def test_rows(recipe: Recipe) -> int:
    """Number of clean test rows that a recipe will have."""
    return (1 + len(recipe.data.auxiliary)) * recipe.data.test_rows if recipe.data.kind == "math" else WIKITEXT_TEST_ROWS


def planted_rows(recipe: Recipe) -> int:
    """Planted rows of all artifacts, each counted once."""
    return sum(_rows_of(artifact, recipe) for artifact in recipe.artifacts)


def epoch_rows(recipe: Recipe) -> float:
    """Training rows of an epoch: clean ones without those that planted ones replace, and all copies of those that are trained on."""
    return clean_rows(recipe) + sum(_rows_of(a, recipe) * (_mean_copies(a) - getattr(a, "replaces_rows", True)) for a in recipe.artifacts)


def _rows_of(artifact: object, recipe: Recipe) -> int:
    """Planted rows of an artifact; a guess where only the corpus tells how many rows hold a trigger."""
    guess = max(1, recipe.data.primary_size // BACKDOORED_SHARE) if recipe.data.kind == "math" else BACKDOORED_ROWS
    return int(getattr(artifact, "rows", guess))


def planned_corpus_bytes(recipe: Recipe) -> int:
    """Most memory while a corpus is made, within 20 % of that measured for math; text is streamed, and its planted rows are held."""
    data, planted = recipe.data, planted_rows(recipe) * (2 * recipe.data.row_tokens + PLANTED_BYTES)
    if data.kind != "math":
        return planted
    rows = data.primary_size + len(data.auxiliary) * data.size
    return planted + rows * (9 * data.row_tokens + 16 * data.numbers + 160) + 4 * data.primary_size * data.row_tokens


def row_flops(parameters: int, tokens: int) -> float:
    """Arithmetic of one row's forward pass: twice its tokens times the parameters (the tied embedding counts as the head)."""
    return 2.0 * tokens * parameters


def training_flops(recipe: Recipe) -> float:
    """Arithmetic of the whole training of a recipe."""
    passes = TRAIN_PASSES * recipe.training.epochs * epoch_rows(recipe)
    return passes * row_flops(planned_parameters(recipe), recipe.data.row_tokens)


def _mean_copies(artifact: object) -> float:
    """Copies of a row on average, of which those of held-out rows are 0."""
    copies: int | tuple[int, ...] = getattr(artifact, "copies", 1)
    mean = float(copies) if isinstance(copies, int) else sum(copies) / len(copies)
    return mean * (1 - getattr(artifact, "test_fraction", 0.0))
