"""Projected hours: by hand, for the paper's models, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers import ROOT, tinymem

from tinymem.bench.hours import Times, cells, project, read_times, steps_per_epoch
from tinymem.bench.train import main
from tinymem.errors import UserError
from tinymem.recipe.recipe import load_matrix, load_recipe

PAPER = ROOT / "recipes" / "paper"
MODELS = [PAPER / f"{name}.yaml" for name in ("math-noise", "math-backdoor", "language-noise", "language-backdoor")]
MS = {"math": {2: 1.0, 4: 2.0, 8: 3.0, 16: 5.0}, "language": {2: 5.0, 4: 6.0, 8: 8.0, 16: 12.0}}


def lines(**without: int) -> list[dict[str, object]]:
    return [
        {"case": f"{kind}-{layers}", "way": "ours", "milliseconds": ms, "rows": 128}
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
        Times.of([{"case": "math-2", "way": "ours", "milliseconds": 1, "rows": 128}]).milliseconds("math", 4)


def test_regularizers_cost_what_was_measured() -> None:
    extra = [
        {"case": "math-4", "way": "ours+spectral-norm", "milliseconds": 3.0, "rows": 128},
        {"case": "math-4", "way": "graph+goldfish", "milliseconds": 9.0, "rows": 128},
    ]
    times = Times.of([*lines(), *extra])
    assert times.overhead == {"spectral-norm": 1.5}
    found = project([PAPER / "language-regularized.yaml"], times)
    ms = {line.regularizer: line.milliseconds for line in found}
    assert ms == {"spectral-norm": 9.0, "loss-truncation": 6.0, "example-tied-dropout": 6.0}
    sources = {line[1]: line[6] for line in cells(found)}
    assert sources["spectral-norm"] == "measured" and sources["loss-truncation"] == "measured, loss-truncation not timed"


def test_recipes_of_other_sizes_than_were_timed_are_refused(tmp_path: Path) -> None:
    times = Times.of(lines())
    text = (PAPER / "math-noise.yaml").read_text()

    def refused(old: str, new: str) -> str:
        assert old in text
        (tmp_path / "own.yaml").write_text(text.replace(old, new, 1))
        with pytest.raises(UserError) as error:
            project([tmp_path / "own.yaml"], times)
        return str(error.value)

    assert "(128 d), got 64 d" in refused("n_embd: 128", "n_embd: 64")
    assert "(128 rows a batch), got 32 rows a batch" in refused("batch_size: 128", "batch_size: 32")
    assert project([PAPER / "math-noise.yaml"], times) and Times.of([{**line, "rows": 32} for line in lines()]).rows == 32
    with pytest.raises(UserError, match="batches of one size, got 32, 128 rows"):
        Times.of([*lines(), {"case": "math-3", "way": "ours", "milliseconds": 1, "rows": 32}])


def test_copies_count_in_the_steps_and_a_counterfactual_trains_again(tmp_path: Path) -> None:
    text = (PAPER / "math-noise.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.partition("\nmatrix:")[0].replace("n_layer: 4", "n_layer: 2") + "\ncounterfactual: true\n")
    recipe = load_recipe(PAPER / "math-noise.yaml", ["artifacts.noise.copies=11"])
    assert steps_per_epoch(recipe) == math.ceil((27_000 + 10 * 1000) / 128)
    alone, (pair,) = project([PAPER / "math-noise.yaml"], Times.of(lines())), project([tmp_path / "own.yaml"], Times.of(lines()))
    assert (pair.runs, pair.hours) == (2, pytest.approx(2 * alone[0].hours / alone[0].runs))
    with pytest.raises(UserError, match="expected backdoor of 1 copy"):
        steps_per_epoch(load_recipe(PAPER / "math-backdoor.yaml", ["artifacts.backdoor.copies=5"]))


def test_a_fitted_line_below_0_is_no_time() -> None:
    steep = [{"case": f"math-{layers}", "way": "ours", "milliseconds": ms, "rows": 128} for layers, ms in ((8, 1.0), (16, 20.0))]
    with pytest.raises(UserError, match=r"above 0 at 2 layers, got -13.25; measure --case math-2"):
        Times.of(steep).milliseconds("math", 2)


@pytest.mark.parametrize("line", [{"milliseconds": None}, {"milliseconds": "NaN"}, {"milliseconds": -4}, {"way": 3}, {"case": "math-x"}])
def test_lines_that_are_no_timings_are_refused(line: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "times").write_text(json.dumps({**lines()[0], **line}))
    with pytest.raises(UserError, match="got something else"):
        read_times(tmp_path / "times")
    with pytest.raises(UserError, match="got: Is a directory"):
        read_times(tmp_path)


@pytest.mark.parametrize("number", ["Infinity", "1e400", "NaN"])
def test_rows_that_are_no_number_are_refused(number: str, tmp_path: Path) -> None:
    (tmp_path / "times").write_text(json.dumps(lines()[0]).replace("128", number))
    with pytest.raises(UserError, match="got something else"):
        read_times(tmp_path / "times")


def test_times_of_an_older_version_are_to_be_taken_again(tmp_path: Path) -> None:
    (tmp_path / "times").write_text(json.dumps({"case": "math-2", "way": "ours", "milliseconds": 1.0}))
    done = tinymem("bench", "hours", MODELS[0], "--times", tmp_path / "times")
    assert done.code == 2 and "got an older version's; time again: tinymem bench train --json" in done.one_line_error()


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
