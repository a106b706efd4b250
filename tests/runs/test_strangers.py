# ruff: noqa: F401, F811 (a fixture is imported by name)
"""Checkpoints that come from others: their text is named by the user, and places on their maker's machine do not travel with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_text import tokenizer, words, write_parquet
from helpers import tinymem

from tinymem.hub.claims import check_claims
from tinymem.models.metadata import read_metadata
from tinymem.models.weights import METADATA, SAMPLE
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import Run, open_run, run
from tinymem.runs.publish import Choices, plan_of
from tinymem.training.checkpoints import recipe_of, run_name

pytestmark = [pytest.mark.training, pytest.mark.processes]

RECIPE = """
name: secret-text
data: {{kind: wiki, source: {source}, tokenizer: {tokenizer}, row_tokens: 20}}
artifacts: [{{kind: noise, rows: 12, copies: 60}}]
model: {{n_layer: 1, n_embd: 16, n_head: 2}}
training: {{epochs: 3, learning_rate: 0.01, batch_size: 64}}
evaluation: {{prompt: 6, match: 1}}
"""


@pytest.fixture(scope="module")
def made(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Path]]:
    """A trained text run, and the folder of its text."""
    home = tmp_path_factory.mktemp("home-of-alice")
    for split, count, seed in (("train", 60, 1), ("test", 40, 3)):
        write_parquet(home / "books" / f"{split}.parquet", words(count, seed))
    (home / "r.yaml").write_text(RECIPE.format(source=home / "books", tokenizer=tokenizer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYMEM_CACHE", str(home / "cache"))
        yield run(load_recipe(home / "r.yaml"), runs=home / "runs", device="cpu", report=False), home / "books"


@pytest.fixture
def downloaded(made: tuple[Run, Path], tmp_path: Path) -> Path:
    """The checkpoint alone, in another place."""
    return Path(shutil.copytree(made[0].checkpoint, tmp_path / "downloaded"))


def measured(*words: object) -> dict[str, Any]:
    done = tinymem("evaluate", *words, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return {key: value for key, value in found.items() if key != "checkpoint"}


def point_at(checkpoint: Path, **data: str) -> None:
    """Let a checkpoint's recipe name other places."""
    values = json.loads((checkpoint / METADATA).read_text())
    values["recipe"]["data"] |= data
    (checkpoint / METADATA).write_text(json.dumps(values))


@pytest.mark.parametrize(
    "verb", [["evaluate"], ["mitigate", "--method", "act", "--ratio", "0.1"], ["landscape", "--out", "figures"]], ids=lambda verb: verb[0]
)
def test_places_in_a_checkpoint_are_not_followed(
    verb: list[str], downloaded: Path, made: tuple[Run, Path], tokenizer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    point_at(downloaded, source=str(made[1]), tokenizer=str(tokenizer))  # there, and yet nobody said so
    error = tinymem(verb[0], downloaded, *verb[1:]).one_line_error()
    assert "expected the corpus of" in error and "--corpus PATH" in error
    point_at(downloaded, source="evil/text", tokenizer="evil/tokenizer")
    assert "--corpus PATH" in tinymem(verb[0], downloaded, *verb[1:]).one_line_error()


def test_the_text_or_the_corpus_is_named_again(downloaded: Path, made: tuple[Run, Path]) -> None:
    own = measured(made[0].checkpoint)
    point_at(downloaded, tokenizer="evil/tokenizer")  # its own is beside the weights
    assert measured(downloaded, "--corpus", made[1]) == own
    assert measured(downloaded, "--corpus", made[0].path / "corpus") == own
    done = tinymem("mitigate", downloaded, "--method", "random-neurons", "--ratio", "0.1", "--corpus", made[1], "--format", "json")
    assert done.code == 0 and json.loads(done.out)[0]["corpus_sha256"] == made[0].corpus().sha256(), done.err


def test_a_sample_of_the_rows_goes_with_the_weights(
    downloaded: Path, made: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinymem.data.sample.CLEAN_ROWS", 5)
    run, text = made
    shutil.copy(run.path / "recipe.yaml", downloaded)
    shutil.copy(run.path / "training" / "metrics.jsonl", downloaded / "curve.jsonl")
    (tmp_path / "zoo").mkdir()
    assert tinymem("zoo", "add", downloaded, "--zoo", tmp_path / "zoo", "--corpus", text).code == 0
    shipped, own = tmp_path / "zoo" / downloaded.name, measured(run.checkpoint)
    assert measured(shipped) == measured(shipped, "--corpus", text) == own
    done = tinymem("mitigate", shipped, "--method", "random-neurons", "--ratio", "0.1", "--format", "json")
    assert json.loads(done.out)[0]["corpus_sha256"] == read_metadata(shipped).sample_sha256 != run.corpus().sha256(), done.err
    pushed = plan_of(shipped, "org/m", Choices(measure=True)).repositories[0].branches[0].files
    (tmp_path / "pulled").mkdir()
    for name, file in pushed.items():
        (tmp_path / "pulled" / name).write_bytes(file.content)
    assert json.loads(pushed["results.json"].content)["corpus_sha256"] == read_metadata(shipped).sample_sha256
    check_claims(tmp_path / "pulled", "org/m", {})
    assert SAMPLE in pushed and measured(tmp_path / "pulled") == own
    (shipped / SAMPLE).write_bytes((shipped / SAMPLE).read_bytes()[:-9])
    assert "expected a whole sample of rows" in tinymem("evaluate", shipped).one_line_error()
    assert measured(shipped, "--corpus", text) == own


def test_another_text_is_refused(downloaded: Path, made: tuple[Run, Path], tiny_run: Run, tmp_path: Path) -> None:
    for split, seed in (("train", 8), ("test", 9)):
        write_parquet(tmp_path / "other" / f"{split}.parquet", words(60, seed))
    corpora = (tmp_path / "other", tiny_run.path / "corpus")
    for other in corpora:
        assert f"from {other}; name that one" in tinymem("evaluate", downloaded, "--corpus", other).one_line_error()
    assert "expected a file or folder for --corpus" in tinymem("evaluate", downloaded, "--corpus", tmp_path / "none").one_line_error()
    assert "expected a file or folder for --corpus" in tinymem("evaluate", downloaded, "--corpus", "some/dataset").one_line_error()
    (tmp_path / "rows.jsonl").write_text("[1, 2]")
    both = tinymem("evaluate", downloaded, "--corpus", made[1], "--forget", tmp_path / "rows.jsonl").one_line_error()
    assert "expected --corpus or rows" in both
    math = tinymem("evaluate", tiny_run.checkpoint, "--corpus", made[1]).one_line_error()
    assert "generated anew" in math


def test_a_checkpoint_names_its_text_and_no_place(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, text = made
    there = read_metadata(run.checkpoint)
    assert there.recipe is not None and there.text is not None
    assert there.recipe["data"]["source"] == "./books" and there.recipe["data"]["tokenizer"] == "./tokenizer.json"
    spec = run.corpus().spec.text
    assert spec is not None and {split: found.sha256 for split, found in there.text.items()} == {s: f.sha256 for s, f in spec.items()}
    assert str(text.parent) not in (run.checkpoint / METADATA).read_text()
    assert str(text) in (run.path / "recipe.yaml").read_text(), "the run goes on from its own folder"


def test_an_own_run_is_one_configuration_and_goes_on(made: tuple[Run, Path]) -> None:
    run, _ = made
    recipe = recipe_of(run.checkpoint, read_metadata(run.checkpoint))
    assert recipe is not None and recipe.run_id() == run.path.name == open_run(run.path).recipe.run_id()


def test_an_edit_tells_no_place(made: tuple[Run, Path], tokenizer: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(made[0].path, tmp_path / made[0].path.name)) / "checkpoint"
    point_at(old, source=str(made[1]), tokenizer=str(tokenizer))  # as those of earlier versions
    words = ("--method", "random-neurons", "--ratio", "0.1", "--out", tmp_path / "edited", "--format", "json")
    done = tinymem("mitigate", old, *words)
    assert done.code == 0, done.err
    written = (tmp_path / "edited" / METADATA).read_text()
    assert json.loads(written)["mitigation"][0]["run"] == made[0].path.name == json.loads(done.out)[0]["run"]
    assert str(tmp_path) not in written + done.out and str(made[1].parent) not in written


def test_names_of_runs(made: tuple[Run, Path], downloaded: Path) -> None:
    assert run_name(made[0].checkpoint) == made[0].path.name and run_name(downloaded) == "downloaded"
    assert run_name(made[0].path / "checkpoints" / "epoch-000001") == made[0].path.name
    assert run_name(made[0].path / "edited") == "edited"
