"""The shipped checkpoints: listed, described, verified, added and loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import ROOT, python, tinymem

from tinymem import zoo
from tinymem.errors import UserError
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.weights import SAMPLE
from tinymem.runs.pipeline import Run
from tinymem.zoo.catalogue import names_in
from tinymem.zoo.manifest import faults

SHIPPED = ROOT / "zoo"


def test_the_shipped_checkpoints_are_as_the_manifest_says() -> None:
    assert faults(SHIPPED) == [] and len(names_in(SHIPPED)) >= 11


@pytest.mark.slow
def test_list_names_what_readers_choose_by() -> None:
    done = tinymem("zoo", "list", "--format", "json")
    entries = {entry["name"]: entry for entry in json.loads(done.out)}
    found = entries["math-add-noise-2l-s1"]
    assert (found["data"], found["artifact"], found["n_layer"], found["seed"], found["epoch"]) == ("additive", "noise", 2, 1, 500)
    assert found["memorized"]["noise"]["count"] == 357 and found["accuracy"] == pytest.approx(0.9906, abs=1e-4)
    assert entries["lang-wiki-noise-4l-s0"]["accuracy"] is None and entries["lang-wiki-noise-4l-s0"]["perplexity"] > 1
    shown = tinymem("zoo", "list").out
    assert "math-mult-backdoor-4l-s3" in shown and f"Checkpoints in {SHIPPED}" in shown, "where they are, however narrow the table"


def test_a_folder_without_checkpoints_is_said(tmp_path: Path) -> None:
    done = tinymem("zoo", "list", "--zoo", tmp_path)
    assert done.code == 2 and f"expected checkpoints in {tmp_path}, found none" in done.err


def test_card_says_how_to_load() -> None:
    math, text = (tinymem("zoo", "card", name).out for name in ("math-mult-noise-4l-s1", "lang-wiki-noise-4l-s0"))
    assert 'zoo.load("math-mult-noise-4l-s1")' in math and "193 of 610" in math
    assert 'zoo.load("lang-wiki-noise-4l-s0")' in text and "by its authors), of which a sample is shipped; `zoo.load` with `corpus=" in text
    assert "CC BY-SA" in text
    wrong = tinymem("zoo", "card", "math-mult-noise-4l-s2")
    assert wrong.code == 2 and "did you mean 'math-mult-noise-4l-s" in wrong.err


def test_card_names_a_sample_only_where_there_is_one(tmp_path: Path) -> None:
    bare = tmp_path / "lang-wiki-noise-4l-s0"
    shutil.copytree(SHIPPED / bare.name, bare, ignore=shutil.ignore_patterns(SAMPLE))
    card = tinymem("zoo", "card", bare.name, "--zoo", tmp_path).out
    assert "by its authors).\n" in card and "sample" not in card
    assert 'zoo.load("lang-wiki-noise-4l-s0", corpus="folder/of/the/text")' in card


def test_verify_finds_what_changed(small: Path) -> None:
    assert tinymem("zoo", "verify", "--zoo", small).code == 0
    with (small / "tiny-2l-s0" / "curve.jsonl").open("a") as file:
        file.write("\n")
    (small / "tiny-2l-s0" / "new.txt").write_text("x")
    (small / "tiny-2l-s0" / "config.json").unlink()
    done = tinymem("zoo", "verify", "--zoo", small)
    assert done.code == 1
    for words in ("curve.jsonl: expected SHA-256", "new.txt: not in the manifest", "config.json: missing"):
        assert words in done.err
    shutil.rmtree(small / "tiny-2l-s0")
    assert "tiny-2l-s0: in the manifest, but not in" in tinymem("zoo", "verify", "--zoo", small).err


def test_add_refuses_half_a_checkpoint_and_a_taken_name(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "others" / "tiny-2l-s0"
    shutil.copytree(small / "tiny-2l-s0", other)
    taken = tinymem("zoo", "add", other, "--zoo", small)
    assert taken.code == 2 and "expected a new name" in taken.err
    (other / "curve.jsonl").unlink()
    half = tinymem("zoo", "add", other, "--zoo", small)
    assert half.code == 2 and "found no curve.jsonl" in half.err


@pytest.mark.processes
def test_tinymem_alone_has_to_be_imported(tmp_path: Path) -> None:
    (tmp_path / "case.py").write_text("import tinymem\nprint(tinymem.zoo.load.__module__)\n")
    assert python(tmp_path / "case.py").out.strip() == "tinymem.zoo.loading"


def test_load_gives_model_corpus_and_planted_rows(small: Path, tiny_run: Run) -> None:
    loaded = zoo.load("tiny-2l-s0", zoo=small)
    assert loaded.corpus.sha256() == tiny_run.corpus().sha256() and set(loaded.planted) == set(tiny_run.corpus().planted)
    weights = load_checkpoint(tiny_run.checkpoint).model.state_dict()
    assert all((tensor == weights[name]).all() for name, tensor in loaded.model.state_dict().items())
    assert loaded.subject().before.memorized.keys() == loaded.planted.keys()


def test_load_refuses_another_corpus(small: Path, tiny_run: Run) -> None:
    metadata = small / "tiny-2l-s0" / "tinymem.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "corpus_sha256": "0" * 64}))
    with pytest.raises(UserError, match="expected the corpus that"):
        zoo.load("tiny-2l-s0", zoo=small)
    with pytest.raises(UserError, match=r"expected the corpus that .*tiny-2l-s0 was trained on \(000000000000\)"):
        zoo.load("tiny-2l-s0", zoo=small, corpus=tiny_run.path / "corpus")


@pytest.mark.parametrize(
    ("name", "kind", "rows"), [("lang-wiki-noise-4l-s0", "noise", 1000), ("lang-wiki-backdoor-4l-s0", "backdoor", 1113)]
)
def test_a_language_model_comes_with_its_rows(name: str, kind: str, rows: int) -> None:
    loaded = zoo.load(name)
    assert len(loaded.corpus.clean) == 8000 and len(loaded.planted[kind].ids) == rows and loaded.corpus.is_text
    assert loaded.corpus.spec.text is not None and loaded.corpus.spec.text["train"].tokens == 25_655_590


def test_text_and_weights_that_are_not_here_are_said(tmp_path: Path) -> None:
    bare = tmp_path / "zoo" / "lang-wiki-noise-4l-s0"
    shutil.copytree(SHIPPED / bare.name, bare, ignore=shutil.ignore_patterns(SAMPLE))
    with pytest.raises(UserError, match="whose text is not shipped; name its folder with corpus=PATH"):
        zoo.load(bare.name, zoo=tmp_path / "zoo")
    with pytest.raises(UserError, match="a wheel has no weights: clone the repository"):
        zoo.load("math-mult-noise-4l-s0", zoo=tmp_path / "none")
