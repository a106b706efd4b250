"""The timings: plain loops give the scores that our methods give, and the path needs torch and numpy only."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tinymem.bench import comparisons, unlearn
from tinymem.bench.case import math_case
from tinymem.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def case():
    return math_case(0.002, "cpu")


def test_the_case_is_the_papers(case):
    whole = math_case(1.0, "cpu").data
    assert (len(whole.forget), len(whole.retain), whole.forget.ids.shape[1]) == (200, 27_000, 150)
    assert case.model.parameter_count() == 814_336
    assert (whole.forget.ids != whole.clean_counterparts.ids).any(1).float().mean() > 0.5


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["act", "durable", "durable-agg", "sou", "slim", "hard-concrete"])
def test_plain_loops_give_our_scores(case, monkeypatch, name):
    # Slim's penalty is below its default `stop` after 10 steps: the comparison must go on as the plain loop does.
    monkeypatch.setattr(comparisons, "STEPS", 14 if name == "slim" else 3)
    part = comparisons.PARTS[name](case, case.data, 4)
    torch.testing.assert_close(part.plain().double(), part.ours().double(), rtol=1e-3, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["greedy", "subnet", "balanced-subnet"])
def test_plain_loops_make_our_choices(case, monkeypatch, name):
    monkeypatch.setattr(comparisons, "STEPS", 2)
    part = comparisons.PARTS[name](case, case.data, 4)
    assert (part.plain().double() != part.ours().double()).double().mean() < 1e-3


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["zero", "ig"])
def test_plain_neuron_loops_give_our_scores(case, monkeypatch, name):
    monkeypatch.setattr(comparisons, "ZERO_STRIDE", 128)
    monkeypatch.setattr(comparisons, "IG_POSITIONS", 1)
    monkeypatch.setattr(comparisons, "_some", lambda data, rows, some=comparisons._some: some(data, 1))
    exact = replace(case, model=deepcopy(case.model).double())  # in fp32 a ReLU near 0 may fall to either side
    part = comparisons.PARTS[name](exact, case.data, 1)
    plain, ours = part.plain().double(), part.ours().double()
    assert float((plain - ours).abs().max() / plain.abs().max()) < 1e-3


def test_bad_requests_are_refused():
    with pytest.raises(UserError, match="at least 4 rows"):
        next(unlearn.bench(rows=3))


@pytest.mark.thorough
@pytest.mark.processes
def test_runs_without_typer_and_pydantic():
    code = """
import sys
for name in ("pydantic", "typer", "lightning", "datasets", "transformers", "rich", "yaml"):
    sys.modules[name] = None
sys.argv = ["bench", "--scale", "0.001", "--device", "cpu", "--methods", "durable,random-neurons"]
from tinymem.bench.unlearn import main
main()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "| durable |" in done.stdout and "of the largest score" in done.stdout and "| random-neurons |" in done.stdout


@pytest.mark.parametrize("words", [["--plain-rows", "3"], ["--device", "tpu"], ["--methods", "durabel"]])
def test_what_cannot_be_timed(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", "--scale", "0.001", *words])
    with pytest.raises(SystemExit) as stop:
        unlearn.main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.startswith("tinymem: ") and len(said.err.splitlines()) == 1
