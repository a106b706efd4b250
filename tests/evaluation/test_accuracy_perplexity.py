"""Token accuracy, its ceiling and perplexity against examples computed by hand and by brute force."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from helpers import QUICKSTART, TINY, random_gpt
from torch import nn

from tinymem.data.build import make_corpus
from tinymem.data.math.sequences import PAD, determined_tokens, first_number_end, render, sequences
from tinymem.data.rows import Rows
from tinymem.evaluation.accuracy import accuracy_ceiling, scored_tokens
from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.perplexity import perplexity
from tinymem.recipe.recipe import Evaluation, load_recipe
from tinymem.results.share import Share

CHARACTERS = "0123456789^$ _"


def ids(*rows: str) -> np.ndarray:
    return np.array([[CHARACTERS.index(c) for c in row] for row in rows], dtype=np.uint8)


class Says(nn.Module):
    """Predicts fixed tokens with fixed confidence: what stands at position t is said at t - 1."""

    def __init__(self, rows: np.ndarray, logit: float | torch.Tensor = 5.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.next = torch.from_numpy(np.roll(rows, -1, axis=1).astype(np.int64))
        self.logit = logit

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        return self.logit * nn.functional.one_hot(self.next[: ids_BT.shape[0], : ids_BT.shape[1]], 14).float()


ROWS = ids("^7 14 21$__", "^12 19 2$__")


def test_scored_tokens() -> None:
    paper = scored_tokens(ROWS, PAD, "paper")
    assert ["".join("x" if s else "." for s in row) for row in paper] == ["...xxxxxx..", "....xxxxx.."]
    assert first_number_end(ROWS).tolist() == [3, 4]
    reference = scored_tokens(ROWS, PAD, "reference")
    assert ["".join("x" if s else "." for s in row) for row in reference] == [".xxxxxxxxxx"] * 2


def test_reference_scores_149_positions() -> None:
    assert scored_tokens(np.full((3, 150), PAD, dtype=np.uint8), PAD, "reference").sum() == 3 * 149


@pytest.mark.parametrize(("protocol", "correct", "of"), [("paper", 9, 11), ("reference", 16, 20)])
def test_accuracy_by_hand(protocol: str, correct: int, of: int) -> None:
    # Wrong: the first number's digits (not scored by the paper), two later tokens, and a token of padding (not scored by the paper).
    said = ids("^9 14 99$__", "^12 19 2$0_")
    scored = scored_tokens(ROWS, PAD, protocol)
    rows = torch.from_numpy(ROWS.astype(np.int64))
    assert int(scored[:, 1:].sum()) == of
    evaluator = Evaluator({}, {"7": (rows, torch.from_numpy(scored.copy()))}, None, "accuracy")
    measured = evaluator.measure(Says(said))
    assert measured.accuracy == Share(correct, of)
    assert measured.accuracy_by_task == {"7": Share(correct, of)}
    assert measured.performance("accuracy") == correct / of


def test_accuracy_pools_tokens_not_tasks_or_batches() -> None:
    recipe = load_recipe(QUICKSTART, TINY)
    corpus, model = make_corpus(recipe), random_gpt(n_positions=30, scale=2)
    whole = Evaluator.of_corpus(corpus, recipe.evaluation, "paper").measure(model)
    one_by_one = Evaluator.of_corpus(corpus, Evaluation(prompt=12, match=12, batch_size=7), "paper").measure(model)
    assert whole.accuracy == one_by_one.accuracy and whole.perplexity == pytest.approx(one_by_one.perplexity, rel=1e-6)
    assert whole.accuracy.rows == sum(int(scored_tokens(rows, PAD, "paper").sum()) for rows in corpus.tests.values())
    assert whole.accuracy.count == sum(share.count for share in whole.accuracy_by_task.values())
    assert set(whole.accuracy_by_task) == {"7", "2", "3", "4", "5"}


def test_perplexity_is_exp_of_the_token_weighted_mean() -> None:
    # One row of 6 scored tokens at loss a, one of 5 at loss b.
    rows = torch.from_numpy(ROWS.astype(np.int64))
    model = Says(ROWS)
    model.logit = torch.tensor([5.0, 1.0])[:, None, None]
    a, b = (math.log(1 + 13 * math.exp(-logit)) for logit in (5.0, 1.0))
    scored = torch.from_numpy(scored_tokens(ROWS, PAD, "paper"))
    found = Evaluator({}, {"7": (rows, scored)}, None, "perplexity").measure(model).perplexity
    assert found == pytest.approx(math.exp((6 * a + 5 * b) / 11), rel=1e-6)
    assert found != pytest.approx((6 * math.exp(a) + 5 * math.exp(b)) / 11, rel=1e-2)  # not a mean of exps
    assert found != pytest.approx(math.exp((a + b) / 2), rel=1e-3)  # not a mean of rows


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    model = random_gpt()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    rows = Rows.of(torch.randint(14, (5, 24)))
    assert Evaluator.of_rows(rows, rows).measure(model).performance("perplexity") == pytest.approx(14, rel=1e-5)


def test_perplexity_that_is_no_number_is_none() -> None:
    # JSON has no infinity: results and curves must be readable whatever a method does to a model.
    assert [perplexity(total, 1) for total in (0.0, 1e6, math.inf, math.nan)] == [1.0, None, None, None]
    assert perplexity(1.0, 0) is None


def brute_force(universe: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which tokens follow their prefix in every row of the universe that begins with it."""
    followers = defaultdict(set)
    for row in universe.tolist():
        for t in range(len(row)):
            followers[tuple(row[:t])].add(row[t])
    return np.array([[len(followers[tuple(row[:t])]) == 1 for t in range(len(row))] for row in rows.tolist()])


@pytest.mark.parametrize("family", ["additive", "multiplicative"])
def test_ceiling_by_brute_force(family: str) -> None:
    universe = np.concatenate([render(sequences(family, k, np.arange(40), 4, 97), 20) for k in (2, 3, 7)])
    rows = universe[::5]
    determined = determined_tokens(universe, rows)
    assert 0.2 < determined.mean() < 1
    assert (determined == brute_force(universe, rows)).all()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["paper", "reference"])
def test_ceiling_of_a_corpus(protocol: str) -> None:
    recipe = load_recipe(QUICKSTART, TINY)
    corpus, data = make_corpus(recipe), recipe.data
    sizes = {k: data.primary_size if k == data.primary else data.size for k in data.tasks}
    universe = np.concatenate([render(sequences("additive", k, np.arange(n), data.numbers, 0), data.row_tokens) for k, n in sizes.items()])
    count = scored = 0
    for rows in corpus.tests.values():
        mask = scored_tokens(rows, PAD, protocol)
        count, scored = count + int((brute_force(universe, rows) & mask).sum()), scored + int(mask.sum())
    assert accuracy_ceiling(corpus, protocol) == Share(count, scored)
    assert 0.7 < count / scored < 1


def test_a_share_of_nothing_is_none() -> None:
    assert Share(0, 0).share is None
    assert Share(1, 4).as_dict() == {"share": 0.25, "count": 1, "rows": 4}
