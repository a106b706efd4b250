"""Hours before anything is run: from measured rows, scaled ones, and the table of costs; and what the command line says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, tinymem

from tinymem.errors import UserError
from tinymem.mitigation import grids
from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.recipe import load_recipe
from tinymem.recipe.sweep import parse_sweep
from tinymem.results.row import MitigationRow
from tinymem.results.store import compact, write_run
from tinymem.runs.pipeline import Run
from tinymem.sweep import estimate
from tinymem.sweep.costs import TABLE, passes, size_of
from tinymem.sweep.estimate import Estimator, MethodCost, measured_rows
from tinymem.sweep.listing import costs, merged
from tinymem.sweep.run import open_sweep

Row = dict[str, Any]
PAPER = ROOT / "recipes" / "paper"
FOUR, SIXTEEN = (load_recipe(PAPER / "math-noise.yaml", [f"model.n_layer={n}"]) for n in (4, 16))


def row(method: str, seconds: float, measure: float = 0.5, **config: Any) -> MitigationRow:
    """A measured run on the 4-layer math model."""
    full = {**vars(UNLEARNERS.get(method).config()), **config}
    facts = {"data": "additive", "data_size": 3000, "n_layer": 4, "n_parameters": 814_336, "rows_forget": 100, "rows_retain": 26_000}
    sizes = {"row_tokens": 150, "seconds": seconds, "seconds_measure": measure}
    return MitigationRow(id=f"{method} {config}", status="ok", method=method, artifact="noise", config=full, **facts, **sizes)


def config(method: str, **options: Any) -> Row:
    return vars(replace(UNLEARNERS.get(method).config(), **options))


def test_a_measured_run_takes_what_it_took() -> None:
    estimator = Estimator([row("act", 2.0, ratio=0.1), row("act", 3.0, ratio=0.2)], probe=False)
    assert estimator.run("act", config("act", ratio=0.1), FOUR) == (2.0, 0.5, "exact")
    cost = MethodCost()
    both = [config("act", ratio=ratio) for ratio in (0.1, 0.2)]
    assert estimator.group(cost, "act", both, FOUR, shared=True) == 4.0  # the longer of both, and each measurement
    assert (cost.runs, cost.groups, cost.alone, cost.shared, cost.measure) == (2, 1, 5.0, 3.0, 1.0) and cost.total == 4.0
    assert estimator.group(MethodCost(), "act", both, FOUR, shared=False) == 6.0


def test_a_stored_row_without_its_defaults_counts_as_the_run_that_it_was() -> None:
    lean = replace(row("subnet", 2.0), config=None, options={"ratio": 0.25, "epochs": 20})
    unknown = [
        replace(lean, id="2", options={"no": 1}),
        replace(lean, id="3", method="a-plugins-method"),
        replace(lean, id="4", method="none"),
    ]
    assert Estimator([lean, *unknown], probe=False).run("subnet", config("subnet", ratio=0.25, epochs=20), FOUR) == (2.0, 0.5, "exact")


def test_the_tests_of_robustness_are_no_measuring() -> None:
    """A row of an older TinyMem has both in one number: it counts what the other rows of such a model took to measure."""
    tested: Row = {"robustness": {"int8": {"before": {}, "after": {}}}}
    older = replace(row("act", 2.0, measure=9.0, ratio=0.1), **tested)
    newer = replace(row("act", 2.0, measure=0.5, ratio=0.2), seconds_robustness=8.0, **tested)
    assert Estimator([older, newer], probe=False).run("act", config("act", ratio=0.1), FOUR) == (2.0, 0.5, "exact")
    assert Estimator([older, newer], probe=False).run("act", config("act", ratio=0.2), FOUR) == (2.0, 0.5, "exact")
    alone = Estimator([older], probe=False)
    assert alone.run("act", config("act", ratio=0.1), FOUR)[1] == alone.run("slim", config("slim"), FOUR)[1] != 9.0


def test_runs_under_the_recipes_own_protocol_count() -> None:
    """Protocol reference gives a method all memorized rows, so that its runs take longer."""
    own, other = (
        replace(row("subnet", seconds), id=protocol, protocol=protocol) for seconds, protocol in ((2.0, "paper"), (9.0, "reference"))
    )
    assert Estimator([own, other], probe=False).run("subnet", config("subnet"), FOUR)[0] == 2.0
    assert Estimator([other], probe=False).run("subnet", config("subnet"), FOUR)[0] == 9.0


def test_the_nearest_run_is_scaled_by_passes_and_arithmetic() -> None:
    estimator = Estimator([row("slim", 2.0, epochs=2), row("slim", 90.0, epochs=60), row("greedy", 8.0, ratio=0.01)], probe=False)
    arithmetic = 3_193_600 / 814_336
    seconds, measure, source = estimator.run("slim", config("slim", epochs=4), FOUR)
    assert (seconds, measure, source) == (pytest.approx(4.0), 0.5, "scaled")
    assert estimator.run("slim", config("slim", epochs=2), SIXTEEN)[:2] == (
        pytest.approx(2.0 * arithmetic),
        pytest.approx(0.5 * arithmetic),
    )
    assert estimator.run("slim", config("slim", epochs=50), FOUR)[0] == pytest.approx(90 * 50 / 60)
    # Greedy has four times the steps there, each on a model with so much more arithmetic.
    assert estimator.run("greedy", config("greedy", ratio=0.01), SIXTEEN)[0] == pytest.approx(8.0 * 4 * arithmetic, rel=1e-3)


def test_without_rows_the_table_and_a_probe_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_probe", lambda recipe, device: 0.25)
    size = size_of(FOUR)
    assert (size.retain, size.forget, size.neurons, size.row_flops) == (27_000, 250, 2048, 2.0 * 150 * 814_336)
    seconds, measure, source = Estimator().run("balanced-subnet", config("balanced-subnet", epochs=10), FOUR)
    assert (seconds, measure, source) == (3 * 10 * 27_250 * 0.25, 6000 * 0.25, "guessed")
    assert passes("greedy", config("greedy", ratio=0.001), size) == pytest.approx(3 * 64 * 0.001 * 4 * (2 * 128 * 512 + 512 + 128))
    assert passes("greedy", {"ratio": 0.001, "per_step": "auto"}, replace(size, mlp_weights=3 * 2**26)) == pytest.approx(64 * 0.003 * 2**26)
    text = size_of(load_recipe(PAPER / "language-noise.yaml"))  # the rows to keep are a sample, "extra" fine-tuning is on all
    assert passes("finetune-extra", {"epochs": 5}, text) == 3 * 5 * 784_000 and text.retain == 100_000
    assert passes("of-my-own", {"epochs": 2}, size) == 3 * 250 * 2 and passes("of-my-own", {}, size) == 3 * 250
    assert Estimator(probe=False).run("act", config("act"), FOUR)[0] > 0
    monkeypatch.setattr(estimate, "device_is_here", lambda device: False)
    assert Estimator(device="cuda").run("act", config("act"), FOUR)[1] == 6000 * size.row_flops / 1e14, "no probe of a GPU that is not here"


def test_the_table_takes_what_methods_do_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    size = size_of(FOUR)
    monkeypatch.setattr(grids, "WEIGHTS_A_STEP", size.mlp_weights // 5)
    assert passes("greedy", {"ratio": 0.01, "per_step": "auto"}, size) == pytest.approx(3 * 64 * 0.01 * size.mlp_weights / 5)
    monkeypatch.setattr(grids, "BUDGET_RHOS", 7)
    assert passes("kfac", {"budget": 0.5, "judged": 10, "sample": 100}, size) == 3 * 100 + 7 * 10


def test_the_table_knows_every_method() -> None:
    assert set(TABLE) == set(UNLEARNERS.names())


def test_a_real_probe() -> None:
    assert estimate._probe(load_recipe(ROOT / "recipes" / "quickstart.yaml"), "cpu") > 0


def test_costs_count_each_model(tmp_path: Path) -> None:
    recipe = parse_sweep({"models": str(PAPER / "math-noise.yaml"), "methods": {"act": {"ratio": [0.1, 0.2]}}})
    sweep = open_sweep(recipe, out=tmp_path, runs=tmp_path, device_type="cpu")
    found = costs(sweep, Estimator([row("act", 2.0, ratio=0.1), row("act", 3.0, ratio=0.2)], probe=False))
    assert found["act"].runs == 2 * 288 and found["act"].groups == 288
    exact = 3 * 4  # of the 72 models those of 4 layers, additive, 3000: 3 seeds at 4 epochs
    assert found["act"].sources == {"exact": 2 * exact, "scaled": 2 * (288 - exact), "guessed": 0}
    twice = merged([found, found])["act"]
    assert twice.runs == 4 * 288 and twice.total == pytest.approx(2 * found["act"].total)


def test_rows_to_estimate_from(tmp_path: Path) -> None:
    rows = [row("act", 2.0)]
    write_run(tmp_path, "a", rows)
    assert measured_rows(tmp_path) == rows
    compact(tmp_path)
    assert measured_rows(tmp_path) == rows == measured_rows(next((tmp_path / "parquet").iterdir()))
    (tmp_path / "rows.json").write_text(f"[{estimate.canonical_json(rows[0].as_dict())}]")
    (tmp_path / "rows.jsonl").write_text(estimate.canonical_json(rows[0].as_dict()) + "\n\n")
    assert measured_rows(tmp_path / "rows.json") == rows == measured_rows(tmp_path / "rows.jsonl")
    (tmp_path / "empty").mkdir()
    assert measured_rows(tmp_path / "empty") == []
    with pytest.raises(UserError, match="a file of rows at"):
        measured_rows(tmp_path / "none")
    for name, text in (("a.json", "{"), ("b.json", "3"), ("c.json", "[{}]"), ("d.jsonl", "{}\n"), ("e.jsonl", "x\n"), ("f.parquet", "x")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"(in|of) {tmp_path / name}, got"):
            measured_rows(tmp_path / name)


def test_the_command_line(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(f"name: mine\ncheckpoints: {tiny_run.path}\nmethods: [act, {{slim: {{epochs: [1, 2]}}}}]\n")
    listed = tinymem("sweep", recipe, "--list", "--device", "cpu")
    assert listed.code == 0 and "mine: 17 runs on 1 model, 1 of them trained" in listed.out and "17 left" in listed.out
    assert "The paper" not in listed.out
    dry = tinymem("sweep", recipe, "--dry-run", "--device", "cpu")
    assert dry.code == 0 and "Of the runs, 1 were measured on a model of this size" in dry.out, "by the model's run"
    assert "4 are scaled from the nearest measured, 12 by a table of costs and a probe of speed" in " ".join(dry.out.split())
    said = f"17 runs to do on them, about {3 * 17 * 2} kB of disk in sweeps/mine, and {40 + 25 * 17 * 2} kB more on the way"  # a file a run
    assert f"mine: 1 of 1 model trained, {said}\nNothing was done." in dry.out
    costs = json.loads(tinymem("sweep", recipe, "--dry-run", "--device", "cpu", "--json").out)
    assert {cost["method"]: cost["disk"] for cost in costs} == {"act": 3000 * 5 * 2, "slim": 3000 * 12 * 2}
    assert all(0 < cost["measuring"] < cost["time"] < cost["one by one"] for cost in costs if cost["method"] == "act")
    projected = tinymem("sweep", recipe, "--project", tiny_run.path, "--only", "act", "--only", "ratio=0.05", "--device", "cpu")
    assert projected.code == 0 and "Of the runs, 1 were measured on a model of this size" in projected.out
    nothing = tinymem("sweep", recipe, "--project", tmp_path, "--device", "cpu").one_line_error()
    assert f"expected measured rows in {tmp_path}, found none" in nothing
    assert not (tmp_path / "sweeps").exists(), "nothing is written"
    assert "expected one recipe with --out, got 2" in tinymem("sweep", recipe, recipe, "--out", "x").one_line_error()
    assert "unknown key 'limit'" in tinymem("sweep", recipe, "--set", "limit=3").one_line_error()
    assert (
        "expected trained models, found none of the 288 of the recipe"
        in tinymem("sweep", PAPER / "unlearning-math-noise.yaml", "--device", "cpu").one_line_error()
    )
    assert not (tmp_path / "sweeps").exists()
