"""What a user does with a model of another family: measure it on rows from files, edit it with several methods, load what was saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from by_heart import KNOWN, MATCH, PROMPT, ByHeart, by_heart
from helpers import tinymem
from hub_stub import Hub

from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.edited import save_edited

pytestmark = pytest.mark.filterwarnings("ignore:.*rows to forget are not memorized")
WINDOW = ("--prompt", PROMPT, "--match", MATCH)


@pytest.fixture
def model(tmp_path: Path) -> ByHeart:
    return by_heart(tmp_path / "step36000", torch.bfloat16)


def mitigated(model: ByHeart, *words: object, checkpoint: object = None) -> list[dict[str, Any]]:
    files = ("--forget", model.jsonl("forget", torch.cat([model.known, model.others])), "--retain", model.jsonl("retain", model.retain))
    done = tinymem("mitigate", checkpoint or model.folder, *files, *WINDOW, "--ratio", 0.1, "--format", "json", *words)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()] if done.out[0] == "{" else json.loads(done.out)


@pytest.mark.training
def test_several_methods_on_one_loaded_model(model: ByHeart, tmp_path: Path) -> None:
    rows = mitigated(model, "--method", "act", "--method", "durable", "--forget-rows", "memorized", "--out", tmp_path / "edited")
    assert [row["method"] for row in rows] == ["act", "durable"]
    for row in rows:
        assert row["status"] == "ok" and row["dtype"] == "bfloat16" and row["step"] == 36000 and "revision" not in row
        assert row["rows_scored"] == 2 * KNOWN and row["memorized_count_before"] == KNOWN
        assert row["rows_forget"] + row["rows_holdout"] == KNOWN
        out = tmp_path / "edited" / row["method"]
        assert json.loads((out / "tinymem.json").read_text())["mitigation"][0]["id"] == row["id"]
        assert (out / "model.safetensors.index.json").is_file()
        found = tinymem("evaluate", out, "--forget", model.jsonl("again", torch.cat([model.known, model.others])), *WINDOW, "--json")
        assert json.loads(found.out)["memorized"]["rows"]["count"] == row["memorized_count_after"]
    one = mitigated(model, "--method", "durable", "--forget-rows", "memorized")
    same = ("id", "memorized_count_after", "perplexity_after", "edited_parameters")
    assert {k: one[0][k] for k in same} == {k: rows[1][k] for k in same}


@pytest.mark.training
def test_rows_that_a_method_is_given(model: ByHeart) -> None:
    every, memorized = (mitigated(model, "--method", "act", "--forget-rows", which)[0] for which in ("all", "memorized"))
    assert every["rows_forget"] == memorized["rows_forget"] + KNOWN and every["rows_holdout"] == memorized["rows_holdout"]
    assert every["id"] != memorized["id"]
    files = ("--forget", model.jsonl("forget", model.others), "--retain", model.jsonl("retain", model.retain))
    done = tinymem("mitigate", model.folder, *files, *WINDOW, "--method", "act", "--forget-rows", "memorized")
    assert "expected rows to forget that the model has memorized, got none of 16" in done.last_line_error()


@pytest.mark.training
def test_a_type_is_part_of_a_rows_id(model: ByHeart) -> None:
    whole, half = (mitigated(model, "--method", "act", "--dtype", dtype)[0] for dtype in ("fp32", "bf16"))
    assert whole["dtype"] == "float32" and half["dtype"] == "bfloat16" and whole["id"] != half["id"]


@pytest.mark.training
def test_from_the_hub_by_its_step(model: ByHeart, hub: Hub) -> None:
    hub.add("org/heart", {"config.json": b"{}"})
    hub.add("org/heart", {path.name: path.read_bytes() for path in model.folder.iterdir()}, branch="step143000")
    for words in (("org/heart@step143000",), ("org/heart", "--revision", "step143000")):
        [row] = mitigated(model, *words[1:], "--method", "act", checkpoint=words[0])
        assert row["model_name"] == "org/heart@step143000" and (row["revision"], row["step"]) == ("step143000", 143000)
        assert row["commit"] == hub.repo("org/heart").branches["step143000"]


@pytest.mark.training
def test_landscape_of_a_file(model: ByHeart, tmp_path: Path) -> None:
    rows = model.jsonl("rows", model.known)
    done = tinymem("landscape", model.folder, "--rows", rows, "--points", 3, "--dtype", "fp32", "--out", tmp_path / "figure")
    assert done.code == 0, done.err
    lines = json.loads(next((tmp_path / "figure").glob("*.json")).read_text())["lines"]
    losses = {(line["a"], line["b"]): line["loss"] for line in lines}
    with torch.no_grad():
        found = logits(load_checkpoint(model.folder).model, model.known)
    expected = torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), model.known[:, 1:].flatten())
    assert len(losses) == 9 and losses[0, 0] == pytest.approx(float(expected), rel=1e-4)


def test_a_method_twice_and_an_option_that_one_lacks(tmp_path: Path) -> None:
    words = ("--forget", tmp_path, "--retain", tmp_path)
    assert "each method once" in tinymem("mitigate", tmp_path, *words, "--method", "act", "--method", "act").one_line_error()
    done = tinymem("mitigate", tmp_path, *words, "--method", "act", "--method", "durable", "--kappa", 1)
    assert "unknown option 'kappa' of act" in done.one_line_error()


@pytest.mark.training
def test_a_full_disk_leaves_nothing(model: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinymem.models import edited

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edited, "write_tensors", full)
    files = ("--forget", model.jsonl("forget", model.known), "--retain", model.jsonl("retain", model.retain))
    done = tinymem("mitigate", model.folder, *files, *WINDOW, "--method", "act", "--ratio", 0.1, "--out", tmp_path / "out")
    assert done.code == 2 and "No space left" in done.err.splitlines()[-1] and not (tmp_path / "out").exists()
    assert save_edited.__module__ == "tinymem.models.edited"
