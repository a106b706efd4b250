"""The scripts of benchmarks/ on made-up runs with known answers, and data-parallel scaling on two CPU processes."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, Done, python

MEMORIZED = {("none", "bf16"): (0.5, 0.4, 0.45), ("none", "fp32"): (0.52, 0.44, 0.42), ("goldfish", "bf16"): (0.1, 0.0, 0.02)}
SPEED = {("none", "bf16"): 4e6, ("none", "fp32"): 2e6, ("goldfish", "bf16"): 3.2e6}


def make_runs(folder: Path, memorized: dict[tuple[str, str], tuple[float, ...]] = MEMORIZED) -> Path:
    for (label, precision), shares in memorized.items():
        for seed, share in zip((0, 1, 3), shares, strict=True):
            run = folder / f"regularizers-{label}-seed{seed}-{precision}"
            (run / "checkpoint").mkdir(parents=True)
            (run / "training").mkdir()
            recipe = {
                "name": f"regularizers-{label}-seed{seed}",
                "seed": seed,
                "training": {"batch_size": 128, "regularizers": [] if label == "none" else [{"kind": label}]},
                "data": {"row_tokens": 150},
            }
            metrics = {"memorized": {"noise": {"share": share, "count": 1, "rows": 2}}, "accuracy": 0.97}
            facts = {"recipe": recipe, "precision": precision, "epoch": 250, "metrics": metrics}
            (run / "checkpoint" / "tinymem.json").write_text(json.dumps(facts))
            speeds = [0.0, 1e3, SPEED[label, precision], SPEED[label, precision]]  # the first has none, the second compiles
            curve = [
                {"epoch": 50 * i, "tokens_per_second": speed, "memorized": {"noise": {"share": share * i / 3}}}
                for i, speed in enumerate(speeds)
            ]
            (run / "training" / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve))
    return folder


def script(name: str, *words: object) -> Done:
    return python(ROOT / "benchmarks" / name, *words)


@pytest.mark.processes
def test_regularizers(tmp_path: Path) -> None:
    done = script("regularizers.py", make_runs(tmp_path), "--json")
    assert done.code == 0, done.err
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in done.out.splitlines():
        row = json.loads(line)
        rows[row["config"].removeprefix("regularizers-"), row["precision"]] = row
    assert set(rows) == set(MEMORIZED) and all(row["seeds"] == [0, 1, 3] for row in rows.values())
    assert rows["goldfish", "bf16"]["memorized"] == pytest.approx([10, 0, 2])
    assert rows["none", "bf16"]["milliseconds"] == pytest.approx(1e3 * 128 * 150 / 4e6)
    assert rows["goldfish", "bf16"]["overhead"] == pytest.approx(0.25) and rows["none", "fp32"]["overhead"] == pytest.approx(0)
    times = [{"case": "math-2", "way": way, "milliseconds": ms, "rows": 128} for way, ms in (("ours", 1.0), ("ours+goldfish", 1.07))]
    (tmp_path / "times").write_text("\n".join(map(json.dumps, times)))
    table = script("regularizers.py", tmp_path, "--times", tmp_path / "times").out
    (line,) = [line for line in table.splitlines() if "goldfish" in line]
    assert "+7 %" in line and f"{statistics.mean((10, 0, 2)):.1f} ± {statistics.stdev((10, 0, 2)):.1f}" in line


@pytest.mark.processes
def test_precision(tmp_path: Path) -> None:
    done = script("precision.py", make_runs(tmp_path / "same"))
    assert done.code == 0 and "means differ by 1.0 points, seeds by up to 10.0: the same" in done.out, done.err
    assert "| epoch | fp32: seeds 0, 1, 3 | bf16: seeds 0, 1, 3 |" in done.out
    assert "| 150 | 52.0, 44.0, 42.0 | 50.0, 40.0, 45.0 |" in done.out and "| 0 |" not in done.out
    far = {("none", "bf16"): (0.5, 0.4, 0.45), ("none", "fp32"): (0.1, 0.12, 0.11)}
    done = script("precision.py", make_runs(tmp_path / "other", far))
    assert done.code == 1 and "seeds by up to 10.0: NOT the same" in done.out
    half = {("none", "bf16"): (0.5, 0.4, 0.45)}
    assert "found 0 and 3" in script("precision.py", make_runs(tmp_path / "half", half)).err


@pytest.mark.thorough
@pytest.mark.processes
def test_scaling_on_two_processes() -> None:
    words = ("--device", "cpu", "--processes", 2, "--case", "math-2", "--rows", 3, "--steps", 1)
    done = script("ddp_scaling.py", *words)
    assert done.code == 0, done.err
    numbers = done.out.splitlines()[-1].split()
    assert numbers[0] == "2" and float(numbers[1]) > 0 and 1 < float(numbers[-2]) < 4 and numbers[-1] == "cpu"


@pytest.mark.thorough
@pytest.mark.processes
def test_curvature_times_each_part() -> None:
    done = script("curvature.py", "math", "--layers", 1, "--rows", 4, "--device", "cpu")
    assert done.code == 0, done.err
    record = json.loads(done.out.splitlines()[-1])
    assert record["projections"] == 2 and set(record["seconds"]) == {"pass", "eigenvectors", "first_edit", "edit"}
    assert min(record["seconds"].values()) > 0


@pytest.mark.thorough
@pytest.mark.processes
def test_curvature_moments_of_different_rows(checkpoint: Path) -> None:
    done = script("curvature_moments.py", checkpoint, "--rows", 3, 6, "--rho", 0.9, "--test-rows", 2, "--device", "cpu")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(r["A_rows"], r["G_rows"]) for r in records] == [(3, 3), (3, 6), (6, 3), (6, 6)]
    assert len({r["before"] for r in records}) == 1 and all(0 <= r["accuracy"] <= 1 for r in records)
