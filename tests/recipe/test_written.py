"""Triggers, payloads and canaries' texts are text: what YAML reads as another number is refused, in a file and in --set."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from helpers import QUICKSTART

from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe, dump_recipe, load_recipe
from tinymem.recipe.source import WrittenInt

KEYS = {"backdoor": ("trigger", "payload"), "canary": ("template", "alphabet", "separator")}
PLACES = [(kind, key) for kind, keys in KEYS.items() for key in keys]


def recipe_with(tmp_path: Path, kind: str, key: str, text: str, how: str) -> Recipe:
    options = f", {key}: {text}" if how == "file" else ""
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: t\ndata: {{kind: math, row_tokens: 150}}\nartifacts:\n  - {{kind: {kind}{options}}}\n")
    return load_recipe(path, [] if how == "file" else [f"artifacts.{kind}.{key}={text}"])


@pytest.mark.parametrize("how", ["file", "set"])
@pytest.mark.parametrize(("kind", "key"), PLACES)
@pytest.mark.parametrize("text", ["0100", "0x41", "12:30", "1_000", "+5", "1.10", "1.0e+3", ".inf", "yes", "2024-01-01", "[1]"])
def test_what_yaml_reads_as_something_else_is_refused(tmp_path: Path, kind: str, key: str, text: str, how: str) -> None:
    with pytest.raises(UserError, match=f"expected '{key}' to be text.*quote it"):
        recipe_with(tmp_path, kind, key, text, how)


@pytest.mark.parametrize("how", ["file", "set"])
@pytest.mark.parametrize(("text", "read"), [("100", "100"), ("'0100'", "0100"), ('"1.10"', "1.10"), ("12x", "12x"), ("08", "08")])
def test_digits_and_quoted_text_are_read_as_they_stand(tmp_path: Path, text: str, read: str, how: str) -> None:
    recipe = recipe_with(tmp_path, "backdoor", "trigger", text, how)
    assert recipe.corpus_spec().as_json()["artifacts"][0]["trigger"] == read
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml").corpus_spec() == recipe.corpus_spec()


def test_numbers_may_be_written_in_any_way() -> None:
    recipe = load_recipe(QUICKSTART, ["artifacts.noise.rows=1_00", "artifacts.backdoor.within=0x10", "training.epochs=010"])
    noise, backdoor = recipe.corpus_spec().as_json()["artifacts"]
    assert (noise["rows"], backdoor["within"], recipe.training.epochs) == (100, 16, 8)
    assert type(recipe.training.epochs) is int


def test_a_number_keeps_how_it_is_written() -> None:
    assert pickle.loads(pickle.dumps(WrittenInt(64, "0100"))).written == "0100"
