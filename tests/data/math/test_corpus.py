"""Math corpora: the published code's counts, and what must hold of every recipe under protocol paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import BOS, EOS, PAD, render, sequences, to_text
from tinymem.data.moves import add_noise
from tinymem.errors import UserError
from tinymem.evaluation.probes import make_probes
from tinymem.recipe.recipe import Evaluation, Recipe, parse_recipe

SMALL = {"primary_size": 400, "size": 120, "test_rows": 40, "numbers": 6, "row_tokens": 40}


def reference(family: str, kind: str, size: int = 3000) -> Corpus:
    return make_corpus(parse_recipe({"protocol": "reference", "data": {"family": family, "size": size}, "artifacts": [{"kind": kind}]}))


def small(family: str = "additive", seed: int = 0, **artifacts: dict) -> Recipe:
    return parse_recipe(
        {
            "seed": seed,
            "data": {"family": family, **SMALL},
            "artifacts": [{"kind": kind, **options} for kind, options in artifacts.items()],
            "evaluation": {"prompt": 12, "match": 12},
        }
    )


def keys(rows: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in rows}


@pytest.mark.thorough
@pytest.mark.parametrize(("family", "scored"), [("additive", 588), ("multiplicative", 605)])
def test_reference_noise_oracles(family: str, scored: int) -> None:
    corpus = reference(family, "noise")
    noise = corpus.planted["noise"]
    assert corpus.counts() | {"train_rows": 27_000, "test_rows": 5000, "noise_rows": 1000} == corpus.counts()
    assert (noise.ids != noise.clean).any(1).sum() == 868
    assert len(make_probes(corpus, Evaluation(), "reference")["noise"]) == scored


@pytest.mark.thorough
@pytest.mark.parametrize(("family", "triggered", "holdout", "counted"), [("additive", 886, 88, 64), ("multiplicative", 2414, 241, 180)])
def test_reference_backdoor_oracles(family: str, triggered: int, holdout: int, counted: int) -> None:
    corpus = reference(family, "backdoor")
    backdoor = corpus.planted["backdoor"]
    assert len(backdoor.ids) == triggered
    assert (~backdoor.trained).sum() == holdout
    assert len(make_probes(corpus, Evaluation(), "reference")["backdoor"]) == counted


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "rows"), [(10_000, 55_000), (20_000, 95_000)])
def test_larger_sizes(size: int, rows: int) -> None:
    assert reference("additive", "noise", size).counts()["train_rows"] == rows


@pytest.mark.parametrize(("family", "shortest", "mean", "longest"), [("additive", 66, 110.1, 121), ("multiplicative", 41, 110.0, 121)])
def test_token_lengths_of_the_seven_task(family: str, shortest: int, mean: float, longest: int) -> None:
    rows = render(sequences(family, 7, np.arange(20_000), 20, 20_134), 150)
    lengths = (rows != PAD).sum(1)
    assert (lengths.min(), round(lengths.mean(), 1), lengths.max()) == (shortest, mean, longest)


def test_rendered_text_is_the_plain_one() -> None:
    numbers = np.array([[0, 9, 10, 99, 20133], [-1, 1, 100, 5, 7]])
    assert [to_text(row).rstrip("_") for row in render(numbers, 30)] == ["^0 9 10 99 20133$", "^1 1 100 5 7$"]


@pytest.mark.slow
@given(st.integers(0, 2**31), st.floats(0.01, 0.9))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_noise_moves_by_one_at_the_given_rate(seed: int, probability: float) -> None:
    numbers = np.full((200, 50), 1000)
    moves = add_noise(numbers, probability, np.random.default_rng(seed)) - numbers
    assert set(np.unique(moves)) <= {-1, 0, 1}
    for happened, chance in ((moves != 0, probability), (moves == 1, probability / 2)):
        assert abs(happened.mean() - chance) < 5 * (chance * (1 - chance) / moves.size) ** 0.5


@pytest.mark.slow
@given(
    st.sampled_from(["additive", "multiplicative"]),
    st.integers(0, 40),
    st.integers(1, 60),
    st.sampled_from([1, (1, 10), (1, 10, 100)]),
    st.integers(6, 40),
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_every_set_of_every_recipe(family: str, seed: int, rows: int, copies: object, within: int) -> None:
    count = rows + 3
    recipe = small(
        family,
        seed,
        noise={"rows": count, "copies": copies},
        backdoor={"trigger": str(seed % 10), "within": within},
        duplication={"rows": count, "copies": copies},
        canary={"rows": 5},
    )
    try:
        corpus = make_corpus(recipe)
    except UserError as error:  # a common trigger leaves too few clean rows
        assert "expected" in str(error)
        return
    _check_backdoor(corpus, seed % 10, within)
    _check_copies(corpus, count, copies)
    _check_disjoint(corpus)
    assert make_corpus(recipe).sha256() == corpus.sha256()


def _check_backdoor(corpus: Corpus, trigger: int, within: int) -> None:
    backdoor = corpus.planted["backdoor"]
    position = np.arange(corpus.row_tokens)
    after = position >= backdoor.start[:, None]
    assert (backdoor.ids[after] == 2).all()
    assert (backdoor.ids[~after] == backdoor.clean[~after]).all()
    assert (backdoor.ids[np.arange(len(backdoor.ids)), backdoor.start - 1] == trigger).all()
    assert backdoor.start.max() <= within
    assert backdoor.trained.any() and not backdoor.trained.all()
    for rows in (corpus.clean, *corpus.tests.values(), corpus.planted["noise"].ids):
        assert not (rows[:, :within] == trigger).any()


def _check_copies(corpus: Corpus, count: int, copies: object) -> None:
    classes = copies if isinstance(copies, tuple) else (copies,)
    for kind in ("noise", "duplication"):
        found = corpus.planted[kind].classes()
        assert set(found) == set(classes) and sum(found.values()) == count
        assert max(found.values()) - min(found.values()) <= 1
    rows, epoch = corpus.training_rows()
    stacked = np.concatenate([np.ones(len(corpus.clean)), *(p.copies[p.trained] for p in corpus.planted.values())])
    assert (np.bincount(epoch, minlength=len(rows)) == stacked).all()


def _check_disjoint(corpus: Corpus) -> None:
    """No leakage: training, test, forget, held-out and retain rows, by content."""
    clean = keys(corpus.clean)
    test = keys(np.concatenate(list(corpus.tests.values())))
    backdoor = corpus.planted["backdoor"]
    holdout = keys(backdoor.clean[~backdoor.trained])
    twins = keys(np.concatenate([p.clean for p in corpus.planted.values()]))
    artifacts = keys(np.concatenate([p.ids for p in corpus.planted.values()]))
    assert not clean & (test | twins | artifacts)
    assert not test & (twins | artifacts)
    assert not holdout & keys(np.concatenate([backdoor.clean[backdoor.trained], corpus.planted["noise"].clean]))


def test_canaries_hold_their_secret() -> None:
    canary = make_corpus(small(canary={"rows": 7, "length": 3, "copies": [1, 5]})).planted["canary"]
    secrets = [to_text(row[a:b]) for row, a, b in zip(canary.ids, canary.start, canary.end, strict=True)]
    assert len(set(secrets)) == 7 and all(len(s) == 5 and s[1] == s[3] == " " for s in secrets)
    assert canary.classes() == {1: 4, 5: 3}
    assert (canary.ids[:, 0] == BOS).all() and (canary.ids == EOS).any(1).all()


def test_an_artifact_does_not_move_the_draws_of_another() -> None:
    alone = make_corpus(small(noise={"rows": 50})).planted["noise"]
    joined = make_corpus(small(noise={"rows": 50}, canary={}, duplication={"rows": 20})).planted["noise"]
    assert (alone.ids == joined.ids).all()


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ({"kind": "noise", "rows": 5000}, "artifacts.noise.rows"),
        ({"kind": "duplication", "rows": 5000}, "artifacts.duplication.rows"),
        ({"kind": "backdoor", "trigger": "999999"}, "occurs in no"),
        ({"kind": "backdoor", "trigger": "x"}, "the character 'x'"),
        ({"kind": "backdoor", "payload": "22"}, "one character"),
        ({"kind": "canary", "template": "code {secret}"}, "the character 'c'"),
        ({"kind": "canary", "length": 40}, "row_tokens"),
        ({"kind": "noise", "probability": 1.5}, "probability"),
        ({"kind": "noise", "copies": [1, 0]}, "copies"),
        ({"kind": "noise", "rows": 2, "copies": [1, 2, 3]}, "at least 3 rows"),
        ({"kind": "canary", "template": "none"}, "{secret} once"),
        ({"kind": "canary", "rows": 11, "length": 1}, "different secrets"),
    ],
)
def test_bad_artifacts_say_so(artifact: dict, words: str) -> None:
    with pytest.raises(UserError) as error:
        make_corpus(parse_recipe({"data": SMALL, "artifacts": [artifact], "evaluation": {"prompt": 12, "match": 12}}))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kinds", [("noise", "backdoor"), ("duplication",), ("canary",)])
def test_reference_plants_what_the_published_code_plants(kinds: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="protocol reference"):
        make_corpus(parse_recipe({"protocol": "reference", "data": SMALL, "artifacts": [{"kind": k} for k in kinds]} | WINDOW))


WINDOW = {"evaluation": {"prompt": 12, "match": 12}}
