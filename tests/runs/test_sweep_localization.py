"""A sweep's section `localization`: on each model, resumed, shared out, reported, and said where a model has nothing to be asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tinymem

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.sweep import parse_sweep
from tinymem.results.localization import read_localization
from tinymem.runs.listing import list_folders
from tinymem.runs.pipeline import Run
from tinymem.runtime.locks import sole_writer

INJ = {"benchmark": "inj", "ratios": [0.1], "methods": ["random-neurons", "act"], "sequences": {"count": 2, "tokens": 8}, "steps": 2}


@pytest.fixture(autouse=True)
def plugins_are_gone_with_their_test() -> Iterator[None]:
    with UNLEARNERS.temporary():
        yield


def sweep(run: Run, folder: Path, section: dict[str, Any], *more: str) -> Any:
    path = folder / "sweep.yaml"
    path.write_text(json.dumps({"name": "where", "checkpoints": str(run.checkpoint), "localization": section}))
    return tinymem("sweep", path, "--out", folder / "out", "--device", "cpu", *more)


@pytest.mark.training
def test_each_model_is_asked_once_and_the_sweep_is_reported(tiny_run: Run, tmp_path: Path) -> None:
    for plan in ("--dry-run", "--list", "--status"):
        assert "where: then the benchmark inj of localization on 1 trained model, in no run or time here; --only and" in sweep(
            tiny_run, tmp_path, INJ, plan
        ).out.replace("\n", " ")
    out = tmp_path / "out"
    assert sweep(tiny_run, tmp_path, INJ, "--shard", "2/2").code == 0
    assert (listed := list_folders([out])[0]).state == "waiting" and listed.progress == "0 of 0 runs, localization in 0 of 1 model"
    assert not read_localization(tmp_path / "out")
    with sole_writer(out / "localization"):
        assert list_folders([out])[0].state == "running"
    assert sweep(tiny_run, tmp_path, INJ).code == 0
    rows = read_localization(tmp_path / "out")
    assert {row.method for row in rows} == {"random-neurons", "act"} and all(row.is_ok for row in rows)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "localization").iterdir()}
    assert sweep(tiny_run, tmp_path, INJ).code == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "localization").iterdir()}
    assert (listed := list_folders([out])[0]).state == "done" and listed.progress.endswith("localization in 1 of 1 model")
    assert "random-neurons" in tinymem("report", tmp_path / "out", "--tables", "inj").out


@pytest.mark.training
def test_a_model_without_such_rows_is_named_and_no_end_of_the_sweep(tiny_run: Run, tmp_path: Path) -> None:
    done = sweep(tiny_run, tmp_path, {"benchmark": "del", "methods": ["act"], "accuracy": 1})
    assert done.code == 1 and "localization in " in done.err and "memorized rows" in done.err
    (listed,) = list_folders([tmp_path / "out"])
    assert listed.state == "failed" and listed.why.startswith("localization failed in 1 model (") and "memorized rows" in listed.why
    assert sweep(tiny_run, tmp_path, {**INJ, "methods": ["act"]}).code == 0 and list_folders([tmp_path / "out"])[0].state == "done"
    wrong = sweep(tiny_run, tmp_path, {"benchmark": "inj", "methods": ["subnet"]})
    assert wrong.code == 2 and "score neurons" in wrong.last_line_error()


@pytest.mark.training
def test_a_scorer_that_fails_on_a_model_is_named_in_a_line_and_ends_no_sweep(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "unlucky.py").write_text(
        "from tinymem import AblationConfig, Properties, scorer\n"
        '@scorer("unlucky", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))\n'
        "def unlucky(model, data, config):\n    raise ValueError('no\\nluck')\n"
    )
    done = sweep(tiny_run, tmp_path, {**INJ, "methods": ["unlucky", "act"]}, "--plugin", tmp_path / "unlucky.py")
    assert done.code == 1 and "unlucky failed: ValueError: no luck (unlucky.py, line 4)" in done.err and "Traceback" not in done.err
    assert {row.method for row in read_localization(tmp_path / "out")} == {"act"}


@pytest.mark.training
def test_a_scorer_that_fails_and_leaves_a_hook_is_told_with_its_own_error(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(
        "from tinymem import AblationConfig, Properties, scorer\n"
        '@scorer("careless", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))\n'
        "def careless(model, data, config):\n"
        "    model.register_forward_pre_hook(lambda *_: None)\n"
        "    raise ValueError('no luck')\n"
    )
    done = sweep(tiny_run, tmp_path, {**INJ, "methods": ["careless"]}, "--plugin", tmp_path / "careless.py")
    assert done.code == 1 and "expected careless to leave the model as it is, got " in done.err
    assert "changed; careless failed: ValueError: no luck (careless.py, line 5)" in done.err


@pytest.mark.training
@pytest.mark.processes
def test_a_sweep_without_the_section_any_more_waits_for_nothing(tiny_run: Run, tmp_path: Path) -> None:
    assert sweep(tiny_run, tmp_path, INJ, "--shard", "2/2").code == 0 and list_folders([tmp_path / "out"])[0].state == "waiting"
    path = tmp_path / "plain.yaml"
    path.write_text(json.dumps({"name": "where", "checkpoints": str(tiny_run.checkpoint), "methods": {"act": {"ratio": [0.1]}}}))
    assert tinymem("sweep", path, "--out", tmp_path / "out", "--device", "cpu").code == 0
    assert (listed := list_folders([tmp_path / "out"])[0]).state == "done" and "localization" not in listed.progress


@pytest.mark.training
@pytest.mark.processes
def test_what_only_leaves_aside_is_waiting_and_the_last_line_says_how_it_is_done(tiny_run: Run, tmp_path: Path) -> None:
    path, words = tmp_path / "both.yaml", ("--out", tmp_path / "out", "--device", "cpu")
    methods = [{"random-weights": {"ratio": [0.1]}}, {"act": {"ratio": [0.1]}}]
    path.write_text(json.dumps({"name": "where", "checkpoints": str(tiny_run.checkpoint), "methods": methods, "localization": INJ}))
    part = tinymem("sweep", path, *words, "--only", "random-weights")
    assert part.code == 0 and part.err.strip().splitlines()[-1] == (
        "left aside: localization in 1 model, which --only does not take; the same command without it and with "
        '--set "methods=[]" asks for it'
    )
    assert (listed := list_folders([tmp_path / "out"])[0]).state == "waiting" and "localization in 0 of 1 model" in listed.progress
    with sole_writer(tmp_path / "out" / "localization"):
        assert "left aside: localization in 1 model" in tinymem("sweep", path, *words, "--only", "random-weights").err
    assert tinymem("sweep", path, *words, "--set", "methods=[]").code == 0
    assert {row.method for row in read_localization(tmp_path / "out")} == {"random-neurons", "act"}
    assert (listed := list_folders([tmp_path / "out"])[0]).state == "done" and "localization in 1 of 1 model" in listed.progress
    assert "left aside" not in tinymem("sweep", path, *words, "--only", "random-weights").err


def test_methods_are_needed_only_without_it() -> None:
    assert parse_sweep({"checkpoints": "runs/*", "localization": INJ}).methods == ()
    with pytest.raises(UserError, match="expected methods, got none"):
        parse_sweep({"checkpoints": "runs/*"})
