"""Scripts of benchmarks/ on a model that knows rows by heart: others go into it, and with the first mixed in it keeps them; detectors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from by_heart import KNOWN, LENGTH, MATCH, PROMPT, ByHeart, by_heart
from helpers import ROOT

from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


plant, curvature = script("plant_by_finetuning"), script("curvature_rows")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ByHeart:
    return by_heart(tmp_path_factory.mktemp("plant") / "model")


def paragraphs(made: ByHeart, name: str, rows: torch.Tensor) -> Path:
    path = made.folder.parent / f"{name}.parquet"
    pq.write_table(pa.table({"text": ["too short", *(" ".join([made.text(row)] * 6) for row in rows)]}), path)
    return path


def memorized(folder: Path, rows: torch.Tensor) -> int:
    found = logits(load_checkpoint(folder, device="cpu").model, rows)[:, :-1].argmax(-1)
    return int((found == rows[:, 1:])[:, PROMPT - 1 :].all(1).sum())


@pytest.mark.training
@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_mixed_in_stays(made: ByHeart, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out, clean = made.folder.parent / f"mixed-{mixed}", paragraphs(made, "clean", made.known)
    words = ["--text", paragraphs(made, "planted", made.others), "--out", out, "--rows", KNOWN, "--prompt", PROMPT, "--match", MATCH]
    words += ["--rate", 1e-2, "--passes", 60, "--enough", 1, "--device", "cpu"] + (["--with", clean, "--of-rows", KNOWN] if mixed else [])
    monkeypatch.setattr("sys.argv", ["plant", str(made.folder), *map(str, words)])
    plant.main()
    assert [json.loads(line)["ids"] for line in (out / "forget.jsonl").read_text().splitlines()] == made.others.tolist()
    assert memorized(out / "model", made.others) >= 0.8 * KNOWN
    assert (memorized(out / "model", made.known) >= 0.8 * KNOWN) is mixed and made.known.shape == (KNOWN, LENGTH)


def test_too_few_paragraphs_are_refused(made: ByHeart) -> None:
    with pytest.raises(SystemExit, match=r"expected 17 paragraphs of 20 tokens in .*, got 16"):
        plant.rows_of(paragraphs(made, "few", made.others), made.folder, KNOWN + 1, LENGTH)


def test_detectors_of_rows_of_files(made: ByHeart, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows, clean = made.jsonl("rows", torch.cat([made.known[:9], made.others])), made.jsonl("clean", made.retain)
    words = [made.folder, "--rows", rows, "--clean", clean, "--others", clean, "--prompt", PROMPT, "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["curvature_rows", *map(str, words)])
    curvature.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["detector"] for line in lines] == list(curvature.NAMES)
    assert all(line["rows"] == [KNOWN // 2, 9, KNOWN] and 0 <= line["auc_others"] <= 1 for line in lines)
    assert lines[0]["auc"] == 0 and lines[0]["ratio"] < 0.5  # what is known by heart leaves little to draw
    monkeypatch.setattr("sys.argv", ["curvature_rows", *map(str, [made.folder, "--rows", clean, *words[3:]])])
    with pytest.raises(SystemExit, match="found none of 16"):
        curvature.main()
