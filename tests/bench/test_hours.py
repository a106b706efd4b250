"""Projected hours: by hand, for the paper's models, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT, tinymem

from tinymem.bench.hours import Times, project, read_times, steps_per_epoch
from tinymem.bench.train import main
from tinymem.errors import UserError
from tinymem.recipe.recipe import load_matrix, load_recipe

PAPER = ROOT / "recipes" / "paper"
MODELS = [PAPER / f"{name}.yaml" for name in ("math-noise", "math-backdoor", "language-noise", "language-backdoor")]
MS = {"math": {2: 1.0, 4: 2.0, 8: 3.0, 16: 5.0}, "language": {2: 5.0, 4: 6.0, 8: 8.0, 16: 12.0}}


def lines(**without: int) -> list[dict[str, object]]:
    return [
        {"case": f"{kind}-{layers}", "way": "ours", "milliseconds": ms}
        for kind, times in MS.items()
        for layers, ms in times.items()
        if without.get(kind) != layers
    ]


def test_the_papers_models_by_hand() -> None:
    found = project(MODELS, Times.of(lines()))
    assert sum(line.runs for line in found) == 168
    math_steps = 2 * 3 * (211 + 430 + 743) * (3500 + 500)  # families, seeds, sizes, epochs of both artifacts
    hours = math_steps * sum(MS["math"].values()) + (3 * 8298 * 100 + (8423 + 6423 + 6614) * 50) * sum(MS["language"].values())
    assert sum(line.hours for line in found) == pytest.approx(hours / 3.6e6)
    assert not any(line.fitted for line in found)


@pytest.mark.parametrize(("size", "steps"), [(3000, 211), (10_000, 430), (20_000, 743)])
def test_steps_of_an_epoch(size: int, steps: int) -> None:
    assert steps_per_epoch(load_recipe(PAPER / "math-noise.yaml", [f"data.size={size}"])) == steps
    assert {steps_per_epoch(r) for r in load_matrix(PAPER / "language-backdoor.yaml")} == {8423, 6423, 6614}
    with pytest.raises(UserError, match="not known beforehand"):
        steps_per_epoch(load_recipe(PAPER / "language-noise.yaml", ["data.max_rows=1000"]))


def test_a_depth_that_was_not_measured() -> None:
    milliseconds, fitted = Times.of(lines(language=8)).milliseconds("language", 8)
    assert fitted and milliseconds == pytest.approx(8.0)  # those of language lie on a line
    with pytest.raises(UserError, match="measure --case math-4"):
        Times.of([{"case": "math-2", "way": "ours", "milliseconds": 1}]).milliseconds("math", 4)


def test_regularizers_cost_what_was_measured() -> None:
    extra = [
        {"case": "math-4", "way": "ours+spectral-norm", "milliseconds": 3.0},
        {"case": "math-4", "way": "graph+goldfish", "milliseconds": 9.0},
    ]
    times = Times.of([*lines(), *extra])
    assert times.overhead == {"spectral-norm": 1.5}
    found = project([PAPER / "language-regularized.yaml"], times)
    ms = {line.regularizer: line.milliseconds for line in found}
    assert ms == {"spectral-norm": 9.0, "loss-truncation": 6.0, "example-tied-dropout": 6.0}


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "times.jsonl"
    path.write_text("some words\n" + "\n".join(json.dumps(line) for line in lines(math=8)))
    done = tinymem("bench", "hours", *MODELS, "--times", path)
    assert done.code == 0 and "\n168 runs: " in done.out and "a fitted line" in done.out, done.err
    assert read_times(path).plain["math", 16] == 5.0
    assert "found none; try --way graph" in tinymem("bench", "hours", MODELS[0], "--times", path, "--way", "mine").one_line_error()
    assert "found none" in tinymem("bench", "hours", MODELS[0], "--times", tmp_path / "no").one_line_error()
    path.write_text('{"way": "ours"}')
    assert "got something else" in tinymem("bench", "hours", MODELS[0], "--times", path).one_line_error()


@pytest.mark.slow
def test_bench_train_writes_what_hours_reads(tmp_path: Path) -> None:
    words = ("--case", "math-2", "--way", "graph", "--way", "graph+goldfish", "--steps", 1, "--batch", 2, "--device", "cpu")
    done = tinymem("bench", "train", *words, "--json")
    assert done.code == 0, done.err
    (tmp_path / "times").write_text(done.out)
    times = read_times(tmp_path / "times", "graph")
    assert set(times.plain) == {("math", 2)} and set(times.overhead) == {"goldfish"} and times.plain["math", 2] > 0


@pytest.mark.parametrize("words", [["--steps", "0"], ["--batch", "0"], ["--batch", "-1"], ["--device", "tpu"], ["--case", "math-3"]])
def test_what_cannot_be_timed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--device", "cpu", "--case", "math-2", "--way", "graph", "--batch", "2", *words])
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.startswith("tinymem: ") and len(said.err.splitlines()) == 1 and not said.out
