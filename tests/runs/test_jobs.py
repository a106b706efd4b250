"""Many runs: all slots are used, whatever fails leaves the others alone, and what is finished stays so."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, environment, sets, tinymem

from tinymem.errors import Stopped, UserError
from tinymem.recipe.recipe import Recipe, load_matrix, parse_recipe
from tinymem.results.curve import CurvePoint
from tinymem.runs import job_progress, jobs
from tinymem.runs.jobs import do_many, job_slots
from tinymem.runtime import slots
from tinymem.runtime.slots import Slot

# Stands for `tinymem train`: notes its start and end, and fails, waits or finishes as its run's name says.
STUB = """
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
name, runs = words[words.index("--only") + 1], Path(words[words.index("--runs") + 1])
shares = [word.rpartition(".energy.")[2] for word in words if ".energy." in word]
def note(what):
    print(json.dumps([what, name, time.monotonic(), os.environ.get("CUDA_MPS_PIPE_DIRECTORY"), shares]), file=open(runs / "notes", "a"))
note("start")
if "seed1" in name:
    print("tinymem: the loss became nan", file=sys.stderr)
    sys.exit(2)
if "seed2" in name:
    os.read(0, 1)  # until the supervisor lets go
    note("stopped")
    sys.exit(75)
time.sleep(0.3)
folder = runs / os.environ["FOLDER_" + name.replace("-", "_")] / "checkpoint"
folder.mkdir(parents=True)
(folder / "tinymem.json").write_text("{}")
note("end")
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "r.yaml").write_text("name: stub\nmatrix: {seed: [0, 1, 2, 3, 4], model.n_layer: [1, 2]}\n")
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, str(tmp_path / "stub.py")))
    for recipe in load_matrix(tmp_path / "r.yaml"):
        monkeypatch.setenv("FOLDER_" + recipe.name.replace("-", "_"), recipe.run_id())
    (tmp_path / "runs").mkdir()
    return tmp_path


def some(folder: Path, *seeds: int) -> list[Recipe]:
    return [recipe for recipe in load_matrix(folder / "r.yaml") if recipe.seed in seeds]


def notes(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "runs" / "notes").read_text().splitlines()]


@pytest.mark.processes
def test_others_go_on_where_some_fail(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipes = some(stub, 0, 1, 3)
    failures = do_many("train", stub / "r.yaml", [], recipes, runs=stub / "runs", device="cpu", jobs=2)
    assert {(f.name, f.code, f.reason) for f in failures} == {(f"stub-seed1-layers{n}", 2, "the loss became nan") for n in (1, 2)}
    assert all(f.log.read_text() == "tinymem: the loss became nan\n" for f in failures)
    assert {name for what, name, *_ in notes(stub) if what == "end"} == {f"stub-seed{s}-layers{n}" for s in (0, 3) for n in (1, 2)}
    running = 0
    for what, name, *_ in sorted(notes(stub), key=lambda line: line[2]):
        running += {"start": int("seed1" not in name), "end": -1}[what]
        assert running <= 2
    said = capsys.readouterr().err
    assert "6 runs, 0 finished before, 6 to train" in said and "[6/6]" in said and "2 failed" in said and "left" in said
    again = do_many("train", stub / "r.yaml", [], recipes, runs=stub / "runs", device="cpu", jobs=2)
    assert len(again) == 2 and "6 runs, 4 finished before, 2 to train" in capsys.readouterr().err
    starts = [name for what, name, *_ in notes(stub) if what == "start"]
    assert len(starts) == 6 + 2 and len(set(starts)) == 6


def test_time_left_of_runs_that_were_begun_or_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Four half-done runs of which each has 100 s left, one at a time; the second fails after 40 s of it."""
    recipes = [parse_recipe({"name": f"r{i}", "seed": i, "training": {"epochs": 100}}) for i in range(4)]
    now, epochs = 0.0, dict.fromkeys((recipe.name for recipe in recipes), 50)
    monkeypatch.setattr(job_progress, "curve_of", lambda _, recipe: [CurvePoint(epochs[recipe.name], accuracy=0.5)])
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = job_progress.JobProgress(Path("runs"), recipes, "train", found=0)
    for i, (seconds, epoch) in enumerate(((100, 100), (40, 70), (100, 100), (100, 100))):
        now, epochs[f"r{i}"] = now + seconds, epoch
        progress.ended(recipes[i], seconds, recipes[i + 1 : i + 2], failed="nan" if i == 1 else None)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert [line.rpartition(", ")[2] for line in lines] == [f"{left} left" for left in ("5 min", "3 min 20 s", "1 min 40 s", "0 s")]


@pytest.mark.processes
def test_shares_of_energy(stub: Path) -> None:
    """Those of the places side by side, unless the recipe has its own."""
    do_many("train", stub / "r.yaml", [], some(stub, 0), runs=stub / "runs", device="cpu", jobs=2)
    (stub / "r.yaml").write_text((stub / "r.yaml").read_text() + "training: {energy: {machine_share: 0.1}}\n")
    do_many("train", stub / "r.yaml", [], some(stub, 3), runs=stub / "runs", device="cpu", jobs=2)
    do_many("train", stub / "r.yaml", [], some(stub, 4), runs=stub / "runs", device="cpu", jobs=1)
    expected = {"0": ["machine_share=0.5000", "gpu_share=0.5000"], "3": ["gpu_share=0.5000"], "4": []}
    assert {name[9]: shares for what, name, _, _, shares in notes(stub) if what == "end"} == expected


@pytest.mark.processes
def test_last_words_are_of_this_start(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed says nothing; what its log has from before is not why."""
    (recipe,) = [recipe for recipe in some(stub, 1) if recipe.name.endswith("1")]
    (failure,) = do_many("train", stub / "r.yaml", [], [recipe], runs=stub / "runs", device="cpu", jobs=1)
    assert failure.reason == "the loss became nan"
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", kill))
    (failure,) = do_many("train", stub / "r.yaml", [], [recipe], runs=stub / "runs", device="cpu", jobs=1)
    assert (failure.code, failure.reason) == (-signal.SIGKILL, "said nothing")


@pytest.mark.processes
def test_long_runs_start_first(stub: Path) -> None:
    do_many("train", stub / "r.yaml", [], some(stub, 0, 3), runs=stub / "runs", device="cpu", jobs=1)
    starts = [name for what, name, *_ in notes(stub) if what == "start"]
    assert [name[-1] for name in starts] == ["2", "2", "1", "1"]


@pytest.mark.processes
def test_told_to_stop(stub: Path) -> None:
    def tell() -> None:
        while not (stub / "runs" / "notes").exists() or len(notes(stub)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell).start()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        do_many("train", stub / "r.yaml", [], some(stub, 2, 4), runs=stub / "runs", device="cpu", jobs=4)
    assert [what for what, *_ in notes(stub)].count("stopped") == 2


def test_each_gpu_has_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert job_slots("cuda", 2) == job_slots("auto", 2) == [Slot(str(i), "cuda", {"CUDA_VISIBLE_DEVICES": g}) for i, g in enumerate("0101")]
    assert job_slots("cuda:1", 1) == [Slot("0", "cuda", {"CUDA_VISIBLE_DEVICES": "1"})]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert job_slots("cuda:1", 1) == [Slot("0", "cuda", {"CUDA_VISIBLE_DEVICES": "GPU-7"})]
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(slots, "available_cores", lambda: 12)
    assert [slot.environment["OMP_NUM_THREADS"] for slot in job_slots("cuda:0", 4)] == ["3"] * 4


MPS = """#!/bin/sh
echo "$1 $(cat) $CUDA_VISIBLE_DEVICES" >> "$NOTES"
exit $CODE
"""


@pytest.mark.processes
def test_mps_serves_all_processes(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stub / "bin").mkdir()
    (stub / "bin" / "nvidia-cuda-mps-control").write_text(MPS)
    (stub / "bin" / "nvidia-cuda-mps-control").chmod(0o755)
    for name, value in (("PATH", f"{stub / 'bin'}:{os.environ['PATH']}"), ("NOTES", str(stub / "mps")), ("CODE", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    recipes = some(stub, 0)
    assert not do_many("train", stub / "r.yaml", [], recipes, runs=stub / "runs", device="cpu", jobs=2, mps=True)
    assert (stub / "mps").read_text().split() == ["-d", "quit", "-t", "5"], "started and stopped, and sees all GPUs"
    assert all(pipe and pipe.endswith("/pipe") and not Path(pipe).exists() for *_, pipe, _ in notes(stub))
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(UserError, match="did not start"):
        do_many("train", stub / "r.yaml", [], recipes, runs=stub / "runs", device="cpu", jobs=2, mps=True)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="leave --mps out"):
        do_many("train", stub / "r.yaml", [], recipes, runs=stub / "runs", device="cpu", jobs=2, mps=True)


@pytest.mark.thorough
@pytest.mark.processes
def test_real_runs_share_their_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    rates = "\nmatrix:\n  rate: {good: {}, bad: {training.learning_rate: 1.0e+30}}\n"
    (tmp_path / "r.yaml").write_text(QUICKSTART.read_text() + rates)
    overrides = [o for o in [*SMALLER, "training.epochs=1"] if "learning_rate" not in o]
    words = (tmp_path / "r.yaml", *sets(overrides), "--runs", tmp_path / "runs", "--device", "cpu")
    done = tinymem("train", *words, "--jobs", 2)
    assert done.code == 1, done.err
    assert "1 of 2 runs failed" in done.err and "quickstart-bad" in done.err and "lower training.learning_rate" in done.err
    (checkpoint,) = [Path(line) for line in done.out.split()]
    assert checkpoint.parent.name.rpartition("-")[0] == "quickstart-good" and (checkpoint / "model.safetensors").is_file()
    corpora = list((tmp_path / "runs").glob("*/corpus/clean.parquet"))
    assert len(corpora) == 2 and len({path.stat().st_ino for path in corpora}) == 1
