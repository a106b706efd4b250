"""`tinymem.json` from strangers: data of known types and sizes, or one line; and the checksum of weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import METHODS, QUICKSTART, ROOT, TINY, equal_weights, random_gpt, sets, tinymem

from tinymem.data.tokenizers import tokenizer_files
from tinymem.errors import UserError
from tinymem.models import metadata, weights
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.metadata import read_metadata
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import file_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(random_gpt(), tmp_path / "model", metadata={"own": [1, {"two": None}]}, tokenizer_files=tokenizer_files(24))
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_metadata(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400 + len(str(folder))
    return message


WRONG: dict[str, Any] = {
    "format": ["1", True, 0, 1.0],
    "recipe": ["recipe", [], 3],
    "corpus_sha256": [5, "abc", "A" * 64, "0" * 64 + "\n"],
    "epoch": ["3", True, -1, 3.5, 2**60, 10**4000],
    "metrics": [[], {"epoch": "last"}],
    "mitigation": [{}, ["row"]],
    "edited_from": [1],
    "weights_sha256": [[], {"model.safetensors": 1}, {"../model.safetensors": "0" * 64}, {"config.json": "0" * 64}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_types_and_ranges(folder: Path, key: str, value: Any) -> None:
    (folder / "tinymem.json").write_text(json.dumps({key: value}))
    assert f"'{key}" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"further": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"epoch": ' + "9" * 10_000 + "}",
        '{"further": NaN}',
        '{"further": 1e999}',
        '{"further": "\\ud800"}',
        '{"epoch": 3',
        "[1, 2]",
        "",
    ],
)
def test_what_is_no_json_object_of_finite_depth_and_numbers(folder: Path, text: str) -> None:
    (folder / "tinymem.json").write_text(text)
    assert str(folder / "tinymem.json") in refusal(folder)


def test_an_absurd_size(folder: Path) -> None:
    with (folder / "tinymem.json").open("wb") as file:
        file.truncate(metadata.MAXIMUM_BYTES + 1)  # a hole: no byte is stored, and none is read
    assert "expected at most" in refusal(folder)


def test_a_newer_format(folder: Path) -> None:
    (folder / "tinymem.json").write_text('{"format": 2, "recipe": "of another kind"}')
    assert "format 1 or older, got 2; a newer TinyMem wrote it" in refusal(folder)
    assert "a newer TinyMem wrote it" in tinymem("evaluate", folder).one_line_error()


def test_control_characters_never_reach_the_terminal(folder: Path) -> None:
    for name in ("\x1b[2J", "\x9b31m", "\u202e", "\r\x07"):
        (folder / "tinymem.json").write_text(json.dumps({"recipe": {f"key{name}": 1, "name": f"name{name}"}}))
        assert tinymem("evaluate", folder).one_line_error().isprintable()
        (folder / "tinymem.json").write_text(json.dumps({"weights_sha256": {f"{name}.safetensors": name}}))
        assert tinymem("evaluate", folder).one_line_error().isprintable()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*are not memorized by the model")
@pytest.mark.parametrize("verb", ["mitigate", "mitigate --no-verify", "evaluate", "run"])
def test_weights_are_read_once_for_their_hash(verb: str, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for module in (metadata, weights):
        monkeypatch.setattr(module, "file_sha256", lambda path: read.append(path.name) or file_sha256(path))
    runs = shutil.copytree(tiny_run.path.parent, tmp_path / "runs")
    method = ("--method", "random-neurons", "--ratio", 0.1) if "mitigate" in verb else ()
    words = (*sets([*TINY, METHODS, "mitigation.methods=random-neurons"]), "--runs", runs, "--device", "cpu")
    given = (QUICKSTART, *words) if verb == "run" else (runs / tiny_run.path.name / "checkpoint", *method)
    assert tinymem(*verb.split(), *given).code == 0
    assert read == ["model.safetensors"]


def test_only_hashes_that_were_compared_are_known(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert weights.weights_id(checkpoint, loaded.hashes) == weights.weights_id(checkpoint)
    assert not load_checkpoint(checkpoint, verify=False).hashes, "what was not compared is not known"


def test_further_keys_are_kept(folder: Path) -> None:
    assert read_metadata(folder).as_json()["own"] == [1, {"two": None}]
    (folder / "tinymem.json").unlink()
    assert read_metadata(folder).as_json() == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*are not memorized by the model")
@pytest.mark.parametrize("place", [-1, -999, -5000])
def test_one_flipped_bit_is_refused(folder: Path, place: int) -> None:
    sound = load_checkpoint(folder).model
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[place] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors as it was saved .*, found it changed; copy the checkpoint again, or give"):
        load_checkpoint(folder)
    files = [folder.parent / "forget.jsonl", folder.parent / "retain.jsonl"]
    for first, file in enumerate(files):
        file.write_text("".join(json.dumps({"ids": [first, *((i + j) % 10 for j in range(19))]}) + "\n" for i in range(8)))
    words = ("--method", "random-weights", "--forget", files[0], "--retain", files[1], "--prompt", 5, "--match", 5)
    assert "found it changed" in tinymem("mitigate", folder, *words).last_line_error()
    assert "found it changed" in tinymem("evaluate", folder).one_line_error()
    done = tinymem("mitigate", folder, *words, "--no-verify")
    assert done.code == 0, done.err
    assert "no tinymem.json with its recipe" in tinymem("evaluate", folder, "--no-verify").one_line_error()
    assert not equal_weights(load_checkpoint(folder, verify=False).model, sound)


def test_the_zoo_has_checksums() -> None:
    checkpoints = sorted(path.parent for path in (ROOT / "zoo").glob("*/tinymem.json"))
    assert len(checkpoints) >= 11
    for checkpoint in checkpoints:
        assert read_metadata(checkpoint).weights_sha256 == {"model.safetensors": file_sha256(checkpoint / "model.safetensors")}, checkpoint


@pytest.mark.filterwarnings("ignore:.*(are not memorized by the model|are among the rows to keep)")
def test_a_recipe_without_its_data_and_rows_without_columns_are_data(folder: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps([i, *range(10), *range(9)]) + "\n" for i in range(4))
    (tmp_path / "rows.jsonl").write_text(rows)
    words = (
        "--forget",
        tmp_path / "rows.jsonl",
        "--retain",
        tmp_path / "rows.jsonl",
        "--prompt",
        5,
        "--match",
        5,
        "--out",
        tmp_path / "out",
    )
    said = json.loads((folder / "tinymem.json").read_text())
    (folder / "tinymem.json").write_text(json.dumps({**said, "recipe": {"name": "small"}}))
    assert tinymem("mitigate", folder, "--method", "random-weights", "--ratio", 0.1, *words).code == 0
    for edit in ([{}], [{"method": "\x1b[2J", "artifact": "n", "memorized_count_after": 1, "rows_scored": 2}]):
        (folder / "tinymem.json").write_text(json.dumps({**said, "mitigation": edit, "recipe": {"name": "small"}, "step": 3}))
        assert tinymem("push", folder, "--repo", "org/m", "--dry-run").one_line_error().isprintable()
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    deep = tinymem("evaluate", folder, "--forget", tmp_path / "deep.jsonl", "--retain", tmp_path / "rows.jsonl")
    assert "expected JSON in line 1" in deep.one_line_error()
