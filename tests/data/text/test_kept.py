# ruff: noqa: F401, F811 (fixtures are imported by name)
"""`tinymem cache`, and what the card of a corpus says of its text."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from data_text import cache, folder, recipe, tokenizer, words
from helpers import files_in, tinymem

from tinymem.data.build import make_corpus
from tinymem.data.cache import shared_corpus
from tinymem.data.corpus_files import load_corpus, state, verify_corpus
from tinymem.data.text.kept import clear, in_use, kept
from tinymem.errors import UserError


@pytest.fixture
def entries(cache: Path) -> list[Path]:
    """Two tokenizers' text, a corpus and a tokenizer, of 10 bytes each; and what is none of ours."""
    made = [
        cache / name
        for name in ("tokens/0011223344556677", "tokens/00ff223344556677", "corpora/aa11223344556677", "tokenizers/bb11223344556677")
    ]
    for path in (*made, cache / "mine", cache / "tokens" / "not-one"):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"0123456789")
    for path, days in zip(made, (1, 10, 20, 0), strict=True):
        os.utime(path, (time.time() - days * 86_400,) * 2)
    return made


def test_the_list(entries: list[Path], cache: Path) -> None:
    found = json.loads(tinymem("cache", "--json").out)
    assert [entry["name"] for entry in found] == [f"{path.parent.name}/{path.name}" for path in entries]
    assert all(entry["size"] == 10 and entry["files"] == 1 and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", entry["used"]) for entry in found)
    table = tinymem("cache").out
    assert f"{cache}: 40 B in 4 entries" in table and "who has the tokenizer can read it" in table


def test_a_damaged_list_of_sources_is_no_obstacle(entries: list[Path], cache: Path) -> None:
    (cache / "tokens" / "0011223344556677.of").write_bytes(b"text.txt\n\xff\xfe\n")
    assert json.loads(tinymem("cache", "--json").out)[0]["sources"] == ["text.txt", "\ufffd\ufffd"]
    with in_use(entries[0], "other.txt"):
        assert kept()[0].sources == ("other.txt", "text.txt", "\ufffd\ufffd")


def test_what_another_process_renames_or_removes_meanwhile_is_not_counted(entries: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (entries[1] / ".file.tmp").write_bytes(b"0")
    looked_at = Path.is_file

    def vanishing(path: Path) -> bool:
        found = looked_at(path)
        if path.name == ".file.tmp":
            path.unlink()
        if path.name == f"{entries[2].name}.of":
            shutil.rmtree(path.with_suffix(""))
        return found

    monkeypatch.setattr(Path, "is_file", vanishing)
    assert {(entry.path, entry.files) for entry in kept()} == {(entries[0], 1), (entries[1], 1), (entries[3], 1)}


def test_an_empty_cache(cache: Path) -> None:
    assert tinymem("cache").out == f"{cache}: 0 B in 0 entries\n" and json.loads(tinymem("cache", "--json").out) == []
    assert tinymem("cache", "clear").out == "nothing to remove\n"


def test_clearing_takes_ours_and_nothing_else(entries: list[Path], cache: Path) -> None:
    assert tinymem("cache", "clear").out.count("10 B removed") == 4
    assert not any(path.exists() for path in entries)
    assert (cache / "mine" / "file").exists() and (cache / "tokens" / "not-one" / "file").exists()


def test_clearing_old_ones_and_named_ones(entries: list[Path]) -> None:
    assert tinymem("cache", "clear", "--older-than", 15).out.startswith("corpora/aa11")
    assert [path.exists() for path in entries] == [True, True, False, True]
    assert tinymem("cache", "clear", "tokens/0011223344556677", "bb11").out.count("removed") == 2
    assert [path.exists() for path in entries] == [False, True, False, False]


@pytest.mark.parametrize("name", ["../mine", "mine", "00", "/etc", "tokens", "..", "tokens/not-one"])
def test_only_entries_have_names(entries: list[Path], cache: Path, name: str) -> None:
    before = files_in(cache)
    assert "expected one entry" in tinymem("cache", "clear", name).one_line_error()
    assert {k: v for k, v in files_in(cache).items() if not k.startswith(".used")} == before


def test_links_are_not_followed(entries: list[Path], cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (cache / "tokens" / "cc11223344556677").symlink_to(outside)
    (entries[0] / "link").symlink_to(outside)
    clear()
    assert (outside / "precious").read_text() == "x" and not entries[0].exists()


def test_what_is_in_use_stays(entries: list[Path]) -> None:
    with in_use(entries[0], "text.txt"), in_use(entries[0], "other.txt"):
        done = tinymem("cache", "clear", "0011")
        assert done.code == 1 and "in use by another process" in done.err and entries[0].exists()
        assert next(entry for entry in kept() if entry.path == entries[0]).sources == ("other.txt", "text.txt")
    removed, busy = clear()
    assert len(removed) == 4 and not busy


@pytest.mark.processes
def test_a_corpus_leaves_its_source(folder: Path, tokenizer: Path) -> None:
    made = make_corpus(recipe(folder, tokenizer), workers=1)
    found = {entry.path.parent.name: entry for entry in kept()}
    assert set(found) == {"tokens", "corpora"} and all(entry.sources == (str(folder),) for entry in found.values())
    assert time.time() - found["tokens"].used < 600
    clear()
    assert make_corpus(recipe(folder, tokenizer), workers=1).sha256() == made.sha256()


# ---- the card -----------------------------------------------------------------------------------------------------------------------


def head(place: Path) -> dict[str, object]:
    return yaml.safe_load((place / "README.md").read_text().split("---\n")[1])


@pytest.mark.processes
def test_the_card_states_what_the_user_states_and_no_more(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    silent, stated = recipe(folder, tokenizer), recipe(folder, tokenizer, license="CC-BY-4.0", credit="Jane Doe, Letters")
    own = recipe(folder, tokenizer, license="My own terms")
    assert silent.run_id() == stated.run_id() == own.run_id() and silent.corpus_key() == stated.corpus_key()
    place = tmp_path / "corpus"
    make_corpus(silent, place, workers=1)
    text = (place / "README.md").read_text()
    assert head(place)["license"] == "unknown" and "not stated" in text and "CC BY" not in text and "Wikipedia" not in text
    rows = load_corpus(place).sha256()
    state(stated.data, place)
    text = (place / "README.md").read_text()
    assert head(place)["license"] == "cc-by-4.0" and "License: CC-BY-4.0. Text of: Jane Doe, Letters." in text
    assert verify_corpus(place) == [] and load_corpus(place).sha256() == rows
    state(own.data, place)
    assert (head(place)["license"], head(place)["license_name"]) == ("other", "my-own-terms")
    make_corpus(stated, tmp_path / "again", workers=1)
    state(stated.data, place)
    assert files_in(place).keys() == files_in(tmp_path / "again").keys()
    assert all((place / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files_in(place))


@pytest.mark.processes
def test_another_runs_corpus_is_taken_only_with_the_same_card(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    silent, stated = recipe(folder, tokenizer), recipe(folder, tokenizer, license="mit")
    made = []

    def corpus_of(wanted: object, name: str) -> None:
        place = tmp_path / "runs" / name / "corpus"
        shared_corpus(wanted, place, lambda: made.append(name) or make_corpus(wanted, place, workers=1))  # type: ignore[arg-type]

    for wanted, name in ((silent, "a"), (silent, "b"), (stated, "c")):
        corpus_of(wanted, name)
    assert made == ["a", "c"]
