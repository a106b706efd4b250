"""Two processes train, measure and stop as one: same global batch, same data order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, ROOT, SMALLER, python, sets, tinymem
from plain_metrics import assert_same

from tinymem.data.build import make_corpus
from tinymem.evaluation.evaluator import Evaluator
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.recipe import load_recipe
from tinymem.results.curve import read_curve
from tinymem.runs.pipeline import Run
from tinymem.training import parallel
from tinymem.training.loop import train
from tinymem.training.state import load_state
from tinymem.training.step import own_rows

TIMES = {"seconds", "tokens_per_second"}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_shares_of_a_batch(count: int, processes: int) -> None:
    batch = torch.arange(100, 100 + count)
    shares = [own_rows(batch, process, processes) for process in range(processes)]
    assert len({len(rows) for rows, _ in shares}) == 1
    counted = torch.cat([rows if counts is None else rows[counts] for rows, counts in shares])
    assert torch.equal(counted, batch)


def test_gradients_become_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW hides a wrong factor, so here it is shown without: this process and another, whose gradients are known."""
    mine, theirs = [[torch.randn(shape) for shape in ((3, 4), (5,), ())] for _ in range(2)]
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in mine]
    for parameter, gradient in zip(parameters, mine, strict=True):
        parameter.grad = gradient.clone()
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda flat: flat.add_(torch.cat([gradient.flatten() for gradient in theirs])))
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    parallel.average_gradients([*parameters, torch.nn.Parameter(torch.zeros(2))])  # the last has none
    for parameter, one, other in zip(parameters, mine, theirs, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, (one + other) / 2)


CASES = {
    "tokens": ("[{kind: goldfish, width: 3}, {kind: spectral-norm}, {kind: mem-sinks}]", 1e-5),
    # The last batch's odd row counts twice in the window, and rounding can move a row over the threshold.
    "rows": ("[{kind: loss-truncation, window: 70, drop: 0.2}]", 1e-2),
}
ONE_EPOCH = [*SMALLER, "training.epochs=1", "training.schedule=constant", "training.learning_rate=1e-3"]


def overrides_of(case: str) -> list[str]:
    return [*ONE_EPOCH, f"training.regularizers={CASES[case][0]}"]


@dataclass(frozen=True)
class Together:
    """What two processes left behind."""

    folder: Path
    out: str


@pytest.fixture(scope="module")
def together(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Everything that two processes do in these tests, by one start of both."""
    folder = tmp_path_factory.mktemp("together")
    words = [["train", str(QUICKSTART), *sets(overrides_of(case)), "--device", "cpu", "--runs", str(folder / "runs")] for case in CASES]
    (folder / "recipes.json").write_text(json.dumps(words))
    (folder / "stopping.json").write_text(json.dumps([str(QUICKSTART), ONE_EPOCH]))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    both = python(*launcher, ROOT / "tests" / "support" / "two_processes.py", folder, tiny_run.path)
    assert both.code == 0, both.err
    return Together(folder, both.out)


def two_processes(test: Callable[..., None]) -> Callable[..., None]:
    """Marks of a test of both: one worker runs them all."""
    return pytest.mark.xdist_group("two processes")(pytest.mark.thorough(pytest.mark.training(pytest.mark.processes(test))))


@two_processes
def test_one_of_them_speaks_for_both(together: Together) -> None:
    runs = [load_recipe(QUICKSTART, overrides_of(case)).run_id() for case in CASES]
    assert together.out.split() == [str(together.folder / "runs" / run / "checkpoint") for run in runs]


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case: str, together: Together, tmp_path: Path) -> None:
    tolerance = CASES[case][1]
    recipe = load_recipe(QUICKSTART, overrides_of(case))
    folders = [tmp_path / "1", together.folder / "runs" / recipe.run_id() / "training"]
    trained = train(recipe, make_corpus(recipe), folders[0])
    one, two = ([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders)
    assert [p["train_loss"] for p in two[1:]] == pytest.approx([p["train_loss"] for p in one[1:]], rel=tolerance)
    # Before the first step the models are equal, and so is what is measured, each process its part.
    assert {k: v for k, v in two[0].items() if k not in TIMES} == {k: v for k, v in one[0].items() if k not in TIMES}
    assert two[1]["perplexity"] == pytest.approx(one[1]["perplexity"], rel=tolerance)
    saved: Any = load_checkpoint(folders[1].parent / "checkpoint").model
    assert torch.allclose(saved.transformer.wte.weight, trained.model.transformer.wte.weight, atol=10 * tolerance)
    states = [load_state(folder / "state") for folder in folders]
    assert states[0] is not None and states[1] is not None
    for name, weight in states[0].model.items():
        if not name.endswith("c_attn.bias"):  # that of the keys has no gradient but rounding, which AdamW blows up
            assert torch.allclose(weight, states[1].model[name], atol=10 * tolerance), name


@two_processes
def test_two_processes_measure_as_one(together: Together, tiny_run: Run) -> None:
    setting = tiny_run.recipe.evaluation.model_copy(update={"ks": (6, 16)})
    measured = Evaluator.of_corpus(tiny_run.corpus(), setting, "paper", metrics=("all",)).measure(tiny_run.model())
    expected = json.loads(json.dumps({"metrics": measured.metrics(), "accuracy": measured.accuracy.as_dict()}))
    for rank in (0, 1):
        assert_same(json.loads((together.folder / f"measured-{rank}.json").read_text()), expected)


@two_processes
def test_two_processes_stop_together(together: Together, tmp_path: Path) -> None:
    """A signal to one of them: both stop at the same step, and go on; so does one process alone."""
    recipe = load_recipe(QUICKSTART, ONE_EPOCH)
    one = train(recipe, make_corpus(recipe), tmp_path)
    for rank in (0, 1):
        assert "after step 3 of epoch 1" in (together.folder / f"stopped-{rank}").read_text()
    both = read_curve(together.folder / "stopped" / "metrics.jsonl")
    alone = train(recipe, make_corpus(recipe), together.folder / "alone").curve
    for curve in (both, alone):
        assert [p.train_loss for p in curve[1:]] == pytest.approx([p.train_loss for p in one.curve[1:]], rel=1e-4)


def test_what_torchrun_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    matrix = tinymem("train", ROOT / "recipes" / "paper" / "regularizers.yaml", "--only", "*goldfish*", "--runs", tmp_path / "runs")
    assert "expected one run under torchrun, whose processes train it together, got 3; pick one with --only" in matrix.one_line_error()
    whole = tinymem("run", QUICKSTART, "--runs", tmp_path / "runs")
    assert "expected one process for `run`, got several of torchrun" in whole.one_line_error()
    assert not (tmp_path / "runs").exists()
