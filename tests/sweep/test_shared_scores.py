"""Runs that share a scoring pass: the rows of separate runs, row for row, and each with the cost of a run alone."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT

from tinymem.errors import UserError
from tinymem.mitigation import run as mitigation_run
from tinymem.mitigation import subject
from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import UNLEARNERS, parse_call
from tinymem.mitigation.run import Subject
from tinymem.mitigation.sweep_scores import pass_key, shared_edits
from tinymem.models.metadata import Metadata
from tinymem.recipe.sweep import parse_sweep
from tinymem.registry import load_plugin
from tinymem.results.row import MeasuredRow
from tinymem.results.store import compact, read_rows
from tinymem.runs.checkpoint import mitigate_checkpoint
from tinymem.runs.pipeline import Run
from tinymem.sweep.run import open_sweep
from tinymem.sweep.task import Worker
from tinymem.testing import tiny_case
from tinymem.training.checkpoints import optimizer_state_of

pytestmark = pytest.mark.usefixtures("one_thread")
Row = dict[str, Any]
COST = {"seconds", "seconds_measure", "peak_mb", "scores_shared", "finished"}


@pytest.fixture
def slow() -> Iterator[Any]:
    with UNLEARNERS.temporary():
        load_plugin(ROOT / "tests" / "support" / "sweep_fakes.py")
        yield UNLEARNERS.get("slow")


def swept(run: Run, folder: Path, **keys: Any) -> list[MeasuredRow]:
    """Rows of a sweep, done in this process."""
    methods = [
        {"act": {"ratio": [0.0, 0.0001, 0.05, 0.1]}},
        {"slim": {"ratio": [0.0001, 0.05], "epochs": [1, 3]}},
        {"durable": {"ratio": [0.00001, 0.01, 0.3], "of": ["eligible", "model"], "scope": "tensor"}},
        {"greedy": {"ratio": [0.00001, 0.0005, 0.001, 0.9], "of": "model", "per_step": [2]}},
        {"subnet": {"ratio": [0.01, 0.00001], "epochs": [1, 3]}},
        {"balanced-subnet": {"ratio": 0.1, "epochs": [2, 1], "loss_weight": [0.9]}},
        {"finetune-clean": {"epochs": [1, 2]}},
        "random-neurons",
    ]
    recipe = parse_sweep({"checkpoints": str(run.checkpoint), "methods": methods, **keys})
    sweep = open_sweep(recipe, out=folder, runs=folder, device_type="cpu")
    worker, events = Worker(folder, "cpu"), list[Row]()
    for group in sweep.left():
        worker.work(group, events.append)
    assert [event["event"] for event in events].count("done") == len(sweep.plan.groups)
    return read_rows(folder)


@pytest.mark.thorough
def test_shared_rows_are_those_of_separate_runs(tiny_run: Run, tmp_path: Path) -> None:
    shared, alone = swept(tiny_run, tmp_path / "one"), swept(tiny_run, tmp_path / "other", share_scores=False)
    assert len(shared) == 2 * (4 + 4 + 6 + 4 + 4 + 2 + 2 + 5)
    assert [{k: v for k, v in row.as_dict().items() if k not in COST} for row in shared] == [
        {k: v for k, v in row.as_dict().items() if k not in COST} for row in alone
    ]
    assert not any(row["scores_shared"] for row in alone)
    status = {(row["method"], row["config"].get("ratio"), row["config"].get("of")): row["status"] for row in shared}
    assert status["act", 0.0001, "eligible"] == "refused" and status["act", 0.0, "eligible"] == "ok"
    assert status["greedy", 0.00001, "model"] == "refused" and status["greedy", 0.9, "model"] == "failed"  # more than is eligible
    assert status["greedy", 0.0005, "model"] == "ok" and status["durable", 0.00001, "eligible"] == "refused"
    for row in shared:
        if row["status"] == "ok":
            assert row["seconds"] > 0 and row["peak_mb"] > 0
            assert row["scores_shared"] == (row["method"] != "finetune-clean" and row["config"]["ratio"] > 0)
        else:
            assert row["seconds"] is None and row["message"]


@pytest.mark.thorough
def test_rows_carry_the_facts(tiny_run: Run, tmp_path: Path) -> None:
    row = swept(tiny_run, tmp_path)[0]
    recipe = tiny_run.recipe
    assert row["model_name"] == "additive-120-noise-backdoor-2L" and row["data"] == "additive" and row["data_size"] == 120
    assert (row["n_layer"], row["epoch"], row["seed"], row["regularizer"]) == (2, recipe.training.epochs, 0, None)
    assert row["n_parameters"] == sum(p.numel() for p in tiny_run.model().parameters())
    assert row["run"] == tiny_run.path.name and row["protocol"] == "paper" and row["device"] == "cpu (1 threads)"
    piped = tiny_run.rows[0]
    facts = ("model_name", "data", "data_size", "n_layer", "n_parameters", "epoch", "regularizer", "seed", "protocol", "run")
    assert {k: row[k] for k in facts} == {k: piped[k] for k in facts}
    assert set(piped) <= set(row)


def test_a_sweep_goes_on_from_the_state_that_mitigate_does(tiny_run: Run, tmp_path: Path) -> None:
    """The resume point of the checkpoint's own epoch is gone: an older one is of another model."""
    run = Run(tmp_path / tiny_run.path.name, tiny_run.recipe)
    shutil.copytree(tiny_run.path, run.path)
    shutil.rmtree(run.path / "training" / "state" / "epoch-000006")
    assert (run.path / "training" / "state" / "epoch-000004").is_dir()
    recipe = parse_sweep({"checkpoints": str(run.checkpoint), "methods": {"finetune-clean": {"epochs": [1]}}})
    sweep = open_sweep(recipe, out=tmp_path / "s", runs=tmp_path, device_type="cpu")
    Worker(tmp_path / "s", "cpu").work(sweep.left()[0], lambda _event: None)
    alone = mitigate_checkpoint(run.checkpoint, parse_call("finetune-clean", {"epochs": 1}), device="cpu")
    assert {row["edit_norm"] for row in read_rows(tmp_path / "s")} == {row["edit_norm"] for row in alone}
    assert optimizer_state_of(run.checkpoint, Metadata(epoch=4)) and not optimizer_state_of(run.checkpoint, Metadata(epoch=6))


def test_rows_that_lack_what_is_asked_are_measured_again(tiny_run: Run, tmp_path: Path) -> None:
    def swept_with(**keys: Any) -> list[Row]:
        recipe = parse_sweep({"checkpoints": str(tiny_run.checkpoint), "methods": {"act": {"ratio": [0.05, 0.0001]}}, **keys})
        sweep, events = open_sweep(recipe, out=tmp_path, runs=tmp_path, device_type="cpu"), list[Row]()
        for group in sweep.left():
            Worker(tmp_path, "cpu").work(group, events.append)
        return [event for event in events if event["event"] == "run"]

    assert len(swept_with()) == 2
    plain = read_rows(tmp_path)
    assert not swept_with(), "nothing is left"
    assert len(swept_with(metrics="all", ks=[8])) == 1, "a refused run has nothing to measure"
    (new,) = (row for row in read_rows(tmp_path) if row["status"] == "ok" and row["artifact"] == "noise")
    (old,) = (row for row in plain if row["status"] == "ok" and row["artifact"] == "noise")
    assert new["id"] == old["id"] and new["memorized_after"] == old["memorized_after"]
    assert new["request"]["ks"] == [8] and set(new["metrics_after"]) > set(old["metrics_after"])
    compact(tmp_path)
    assert not swept_with(metrics="all", ks=[8]) and not swept_with() and not swept_with(ks=[8])
    with pytest.raises(UserError, match=r"evaluation\.ks"):
        swept_with(ks=[1000])
    with pytest.raises(UserError, match="unknown metric"):
        swept_with(metrics="perplexities")


def test_a_pass_is_done_once_and_charged_to_all(paper: Subject, slow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the method's steps take time, one for each percent: a run's seconds are those of its own steps, whoever shared them."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    configs = [slow.config(ratio=ratio, seconds=0.02) for ratio in (0.3, 0.0, 0.1, 0.2)]
    found = {edit.config.ratio: edit for edit in shared_edits(paper.model, slow, paper.data, configs)}
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert {ratio: edit.cost.seconds for ratio, edit in found.items()} == pytest.approx({0.0: 0, 0.1: 0.2, 0.2: 0.4, 0.3: 0.6})
    assert not found[0.0].shared and found[0.1].shared


def test_a_pass_that_fails_at_its_largest_ratio_is_done_again_for_the_others(paper: Subject, slow: Any) -> None:
    configs = [slow.config(ratio=ratio, fails_above=0.15) for ratio in (0.1, 0.2, 0.3)]
    begun: list[tuple[list[float], float]] = []
    edits = shared_edits(paper.model, slow, paper.data, configs, lambda c, spent: begun.append(([x.ratio for x in c], spent)))
    found = {edit.config.ratio: edit.result for edit in edits}
    assert isinstance(found[0.3], ArithmeticError) and isinstance(found[0.2], ArithmeticError)
    assert isinstance(found[0.1], torch.nn.Module)
    assert [ratios for ratios, _ in begun] == [[0.3], [0.2], [0.1], [0.1]]  # whom the seconds are charged to
    assert begun[-1][1] > 0


def test_every_epoch_of_a_run_is_charged_what_it_took_to_get_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", map(float, count()).__next__)  # whatever is timed takes one second
    model, data = tiny_case("gpt")
    method = UNLEARNERS.get("slim")
    configs = [method.config(ratio=ratio, epochs=epochs, penalty=1.0) for epochs in (1, 4) for ratio in (0.1, 0.25, 1e-9)]
    charged: list[tuple[int, float]] = []
    edits = list(shared_edits(model, method, data, configs, lambda c, spent: charged.append((len(c), spent))))
    assert [(e.config.epochs, e.config.ratio) for e in edits if not isinstance(e.result, Refused)] == [
        (1, 0.1),
        (1, 0.25),
        (4, 0.1),
        (4, 0.25),
    ]
    by_run = {(e.config.epochs, e.config.ratio): e.cost.seconds for e in edits}
    assert (by_run[1, 0.1], by_run[4, 0.1]) == (1 + 1, 2 + 1), "the pass so far, and the edit"
    assert [n for n, _ in charged] == [1, 1, 4, 1, 1, 2, 1, 1] and charged[5][1] > 0


def test_what_may_share_a_pass() -> None:
    def key(name: str, **options: Any) -> str:
        method = UNLEARNERS.get(name)
        return pass_key(method, replace(method.config(), **options))

    assert key("act", ratio=0.1) == key("act", ratio=0.2) != key("act", scope="model")
    assert key("slim", epochs=1) == key("slim", epochs=20)
    assert key("subnet", epochs=1) == key("subnet", epochs=20)
    assert key("subnet", ratio=0.1) != key("subnet", ratio=0.2)
    assert key("finetune-extra", epochs=1) != key("finetune-extra", epochs=2)


def test_the_tests_of_robustness_have_seconds_of_their_own(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the tests alone move: the trained model's count in the first row of the model."""
    clock = [0.0]

    def tested(_trial: object, _model: object) -> dict[str, dict[str, Row]]:
        clock[0] += 5
        return defaultdict(dict)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for module in (subject, mitigation_run):
        monkeypatch.setattr(module, "tested", tested)
    keys: Row = {
        "checkpoints": str(tiny_run.checkpoint),
        "methods": ["finetune-clean", "random-neurons"],
        "grid": "none",
        "robustness": True,
    }
    sweep = open_sweep(parse_sweep(keys), out=tmp_path, runs=tmp_path, device_type="cpu")
    worker, events = Worker(tmp_path, "cpu"), list[Row]()
    for group in sweep.left():
        worker.work(group, events.append)
    rows = read_rows(tmp_path)
    assert {row.seconds_robustness for row in rows} == {10, 5} and {row.seconds_measure for row in rows} == {0}
    assert [event["seconds"] for event in events if event["event"] == "run"] == [10, 5]
