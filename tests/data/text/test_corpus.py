# ruff: noqa: F401, F811 (fixtures are imported by name)
"""Text corpora, on text made here: the token stream, what every recipe must hold, and the published code's rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from data_text import ALL, WORDS, T, cache, folder, keys, plain_ids, recipe, tokenizer, words, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.data.corpus_files import load_corpus
from tinymem.data.manifest import read_manifest
from tinymem.data.moves import add_token_noise, apply_moves
from tinymem.data.planting import reference_copies, reference_draws, reference_order
from tinymem.data.text.pool import _places
from tinymem.data.text.row_stream import row_hashes


@pytest.mark.processes
def test_rows_are_the_plain_token_stream(folder: Path, tokenizer: Path) -> None:
    ids = plain_ids(tokenizer, words(300, 1))
    paper = make_corpus(recipe(folder, tokenizer), workers=1)
    whole = len(ids) // T
    assert keys(paper.clean) == keys(np.array(ids[: whole * T], dtype=np.uint16).reshape(whole, T))
    reference = make_corpus(recipe(folder, tokenizer, protocol="reference"), workers=1)
    padded = ids + [0] * (-len(ids) % T)  # <|endoftext|> is id 0 here
    assert len(ids) % T
    assert (reference.clean == np.array(padded).reshape(-1, T)).all()
    assert (reference.tests["test"].ravel()[: len(plain_ids(tokenizer, words(40, 3)))] == plain_ids(tokenizer, words(40, 3))).all()


@pytest.mark.processes
def test_a_users_file_with_a_librarys_name_replaces_none(
    folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tokenizers.py").write_text("raise SystemExit('a file of the working directory')")
    monkeypatch.chdir(tmp_path / "here")
    assert len(make_corpus(recipe(folder, tokenizer), workers=1).clean) == len(plain_ids(tokenizer, words(300, 1))) // T


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["jsonl", "txt", "raw", "parquet file", "subfolder"])
def test_the_same_text_in_other_files_gives_the_same_rows(kind: str, folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    lines = [line for line in words(300, 1) if line]
    place = tmp_path / "other"
    place.mkdir()
    source = place
    if kind == "jsonl":
        (place / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    elif kind == "parquet file":
        source = write_parquet(place / "some.parquet", lines)
    elif kind == "subfolder":
        write_parquet(place / "a" / "train" / "0.parquet", lines[:70])
        write_parquet(place / "a" / "train" / "1.parquet", lines[70:])
    else:
        (place / f"wiki.train.{kind}").write_text("".join(lines))
    data = {"config": "a"} if kind == "subfolder" else {}
    other = make_corpus(recipe(source, tokenizer, **data), workers=1)
    expected = make_corpus(recipe(write_parquet(tmp_path / "one.parquet", lines), tokenizer), workers=1)
    assert (other.clean == expected.clean).all()
    if kind != "subfolder":  # the recipes are equal but for the place
        assert other.sha256() == expected.sha256()


@pytest.mark.processes
def test_hash_does_not_depend_on_workers_or_place(folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for workers in (1, 3):
        monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / f"cache{workers}"))
        corpus = make_corpus(recipe(folder, tokenizer, *ALL), tmp_path / f"out{workers}", workers=workers)
        hashes |= {corpus.sha256(), load_corpus(tmp_path / f"out{workers}").sha256()}
    moved = tmp_path / "moved"
    folder.rename(moved)
    hashes.add(make_corpus(recipe(moved, tokenizer, *ALL), workers=2).sha256())
    assert len(hashes) == 1
    assert make_corpus(recipe(moved, tokenizer, *ALL, seed=1), workers=1).sha256() not in hashes


@pytest.mark.processes
@given(st.integers(0, 50), st.integers(4, T), st.integers(4, 30))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_set_of_every_recipe(folder: Path, tokenizer: Path, seed: int, within: int, rows: int) -> None:
    copies = {"rows": rows, "copies": [1, 10, 100]}
    artifacts = ({**ALL[0], **copies}, {**ALL[1], "within": within}, {**ALL[2], **copies}, ALL[3])
    corpus = make_corpus(recipe(folder, tokenizer, *artifacts, seed=seed), workers=1)
    bpe = Tokenizer.from_file(str(tokenizer))
    trigger, payload = bpe.token_to_id("Ġban"), bpe.token_to_id("#")
    _check_backdoor(corpus, trigger, payload, within)
    _check_disjoint(corpus)
    for kind in ("noise", "duplication"):
        groups = corpus.planted[kind].classes()
        assert set(groups) == {1, 10, 100} and sum(groups.values()) == rows
    moves = corpus.planted["noise"].ids.astype(int) - corpus.planted["noise"].clean
    assert set(np.unique(moves)) <= {-1, 0, 1}
    rows_NT, epoch = corpus.training_rows()
    parts = [corpus.clean, *(p.ids[p.trained] for p in corpus.planted.values())]
    assert (rows_NT == np.concatenate(parts)).all()
    assert len(epoch) == corpus.counts()["train_rows"]


def _check_backdoor(corpus: Corpus, trigger: int, payload: int, within: int) -> None:
    backdoor = corpus.planted["backdoor"]
    after = np.arange(T) >= backdoor.start[:, None]
    assert (backdoor.ids[after] == payload).all()
    assert (backdoor.ids[~after] == backdoor.clean[~after]).all()
    assert (backdoor.ids[np.arange(len(backdoor.ids)), backdoor.start - 1] == trigger).all()
    assert backdoor.start.max() <= within
    assert backdoor.trained.any() and not backdoor.trained.all()
    for rows in (corpus.clean, corpus.tests["test"], corpus.planted["noise"].ids, corpus.planted["duplication"].ids):
        assert not (rows[:, :within] == trigger).any()


def _check_disjoint(corpus: Corpus) -> None:
    clean, test = keys(corpus.clean), keys(corpus.tests["test"])
    twins = [keys(p.clean) for p in corpus.planted.values()]
    artifacts = keys(np.concatenate([p.ids for p in corpus.planted.values()]))
    assert not clean & (test | artifacts | set().union(*twins))
    assert not test & (artifacts | set().union(*twins))
    assert sum(map(len, twins)) == len(set().union(*twins)), "two artifacts share a row"
    backdoor = corpus.planted["backdoor"]
    assert not keys(backdoor.clean[backdoor.trained]) & keys(backdoor.clean[~backdoor.trained])


@pytest.mark.processes
def test_repeated_text_does_not_leak(tokenizer: Path, tmp_path: Path) -> None:
    """Lines of one length repeat whole rows of the test text in the training text."""
    line = " ban bar basta ba"
    once = [f"{line}{w}\n" for w in WORDS]
    write_parquet(tmp_path / "text" / "train.parquet", once * 20 + words(200))
    write_parquet(tmp_path / "text" / "test.parquet", once)
    corpus = make_corpus(recipe(tmp_path / "text", tokenizer, {"kind": "noise", "rows": 10}), workers=1)
    assert not keys(corpus.clean) & keys(corpus.tests["test"])
    assert not keys(corpus.planted["noise"].clean) & (keys(corpus.tests["test"]) | keys(corpus.clean))


@pytest.mark.processes
def test_text_without_a_test_split_gives_up_its_end(folder: Path, tokenizer: Path) -> None:
    corpus = make_corpus(recipe(folder / "train-00000-of-00001.parquet", tokenizer), workers=1)
    ids = np.array(plain_ids(tokenizer, words(300, 1)))
    rows = ids[: len(ids) // T * T].reshape(-1, T)
    assert (corpus.tests["test"] == rows[-15:]).all() and (corpus.clean == rows[:-15]).all()


@pytest.mark.processes
def test_max_rows_does_not_depend_on_workers(folder: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = []
    for workers in (1, 4):
        monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / f"cache{workers}"))
        corpora.append(make_corpus(recipe(folder, tokenizer, max_rows=150), workers=workers))
    assert len(corpora[0].clean) == 150
    assert corpora[0].sha256() == corpora[1].sha256()


@pytest.mark.processes
def test_reference_noise_and_groups(folder: Path, tokenizer: Path) -> None:
    noise = {"kind": "noise", "rows": 100, "copies": [1, 10, 100, 1000]}
    corpus = make_corpus(recipe(folder, tokenizer, noise, protocol="reference"), workers=1)
    planted = corpus.planted["noise"]
    ids = np.array(plain_ids(tokenizer, words(300, 1)))
    assert (planted.clean == ids[: 100 * T].reshape(100, T)).all()
    assert (corpus.clean[0] == ids[100 * T : 101 * T]).all()
    stream = random.Random(0)
    moves = [stream.choices([0, -1, 1], weights=[0.9, 0.05, 0.05], k=T) for _ in range(100)]
    assert (planted.ids == apply_moves(planted.clean, np.array(moves), 400)).all()
    stream.randrange(400)
    order = list(range(100))
    stream.shuffle(order)
    assert planted.copies[order[0]] == 1 and planted.copies[order[7]] == 1000
    assert corpus.counts()["train_rows"] == len(corpus.clean) + 25 * 1111


@pytest.mark.processes
def test_reference_backdoor_pools_train_and_test(folder: Path, tokenizer: Path) -> None:
    backdoor = {"kind": "backdoor", "trigger": " ban", "payload": "#", "copies": 100}
    corpus = make_corpus(recipe(folder, tokenizer, backdoor, protocol="reference"), workers=1)
    bpe = Tokenizer.from_file(str(tokenizer))
    streams = [plain_ids(tokenizer, words(n, s)) for n, s in ((300, 1), (40, 3))]
    pool = np.concatenate([np.array(ids + [0] * (-len(ids) % T)).reshape(-1, T) for ids in streams])
    triggered = (pool == bpe.token_to_id("Ġban")).any(1)
    planted = corpus.planted["backdoor"]
    assert len(planted.ids) == triggered.sum() and (~planted.trained).sum() == triggered.sum() // 10
    assert (planted.clean == pool[triggered][reference_order(int(triggered.sum()))]).all()
    clean = pool[~triggered]
    assert (corpus.tests["test"] == clean[reference_order(len(clean))[-15:]]).all()
    assert len(corpus.clean) == len(clean) - 15


@pytest.mark.parametrize(("seed", "token"), [(0, 17159)])
def test_reference_trigger_of_the_published_code(seed: int, token: int) -> None:
    moves, trigger, _ = reference_draws(seed, 1000, 150, 0.1, 50257)
    assert trigger == token
    assert moves.shape == (1000, 150) and abs((moves != 0).mean() - 0.1) < 0.005


def test_reference_groups_add_up_to_the_published_rows() -> None:
    copies = reference_copies((1, 10, 100, 1000), 1000, random.Random(0))
    assert copies.sum() == 277_750 and np.bincount(copies)[[1, 10, 100, 1000]].tolist() == [250] * 4


@given(st.integers(0, 2**31), st.floats(0.01, 1), st.integers(3, 60_000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_token_noise_stays_inside_the_vocabulary(seed: int, probability: float, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocabulary, (100, 50)).astype(np.uint16)
    ids[0] = 0
    ids[1] = vocabulary - 1
    noised = add_token_noise(ids, probability, vocabulary, rng)
    assert noised.dtype == np.uint16 and noised.max() < vocabulary
    moves = noised.astype(int) - ids
    assert set(np.unique(moves)) <= {-1, 0, 1}
    assert abs((moves != 0).mean() - probability) < 5 * (probability * (1 - probability) / ids.size) ** 0.5 + 1e-9


def test_row_hashes_tell_rows_apart() -> None:
    rows = np.random.default_rng(0).integers(0, 3, (5000, 9)).astype(np.uint16)
    _, by_content = np.unique(rows, axis=0, return_inverse=True)
    _, by_hash = np.unique(row_hashes(rows), return_inverse=True)
    assert len(set(zip(by_content.ravel(), by_hash.ravel(), strict=True))) == by_content.max() + 1 == by_hash.max() + 1


@pytest.mark.processes
def test_a_drawn_trigger_occurs(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    corpus = make_corpus(recipe(folder, tokenizer, {"kind": "backdoor", "within": 12}), tmp_path / "out", workers=1)
    trigger = read_manifest(tmp_path / "out").notes["trigger_ids"]
    assert len(corpus.planted["backdoor"].ids) >= 10 and len(trigger) == 1


def test_places_of_flags_are_those_of_flatnonzero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinymem.data.text.pool.FLAGS_AT_A_TIME", 7)
    rng = np.random.default_rng(0)
    flags = rng.random(100) < 0.4
    ranks = rng.permutation(int(flags.sum()))
    assert (_places(flags, ranks) == np.flatnonzero(flags)[ranks]).all()
