"""The Parsl engine on this machine: two blocks of HighThroughputExecutor on loopback, one of its workers killed in mid-run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers import ROOT, environment, tinymem

from tinymem.results.store import read_rows
from tinymem.runs.pipeline import Run

FAKES = ROOT / "tests" / "support" / "sweep_fakes.py"
CONFIG = """
from parsl import Config, HighThroughputExecutor
from parsl.providers import LocalProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=1,
            heartbeat_period=2,
            heartbeat_threshold=10,
            provider=LocalProvider(init_blocks=2, min_blocks=2, max_blocks=2),
        )
    ],
    retries=3,
    strategy="none",
    run_dir={run_dir!r},
)
"""


@pytest.mark.thorough
@pytest.mark.processes
def test_two_blocks_and_a_killed_worker(tiny_run: Run, tmp_path: Path) -> None:
    runs, log = 40, tmp_path / "log"
    recipe, config, folder = tmp_path / "sweep.yaml", tmp_path / "config.py", tmp_path / "sweep"
    recipe.write_text(f"checkpoints: {tiny_run.checkpoint}\nmethods: [{{fake: {{number: {list(range(runs))}, seconds: 0.2}}}}]\n")
    config.write_text(CONFIG.format(run_dir=str(tmp_path / "parsl")))
    words = ["sweep", recipe, "--out", folder, "--plugin", FAKES, "--device", "cpu", "--engine", "parsl", "--config", config]
    process = subprocess.Popen(
        [sys.executable, "-m", "tinymem", *map(str, words)],
        env={**environment(), "FAKE_LOG": str(log)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 200
    while len({line.split()[2] for line in started(log)}) < 2:  # both blocks are at work
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    os.kill(int(started(log)[-1].split()[2]), signal.SIGKILL)  # the Parsl worker whose child does the runs
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and f"{runs} runs: {runs} ok" in out, err
    rows = read_rows(folder)
    assert len({row["id"] for row in rows}) == runs
    assert set(Counter((row["id"], row["artifact"]) for row in rows).values()) == {1}
    times = Counter(line.split()[0] for line in started(log))
    assert len(times) == runs and times.total() <= runs + 1, "only what the killed worker was at is done again"
    assert not (tmp_path / "runinfo").exists()


def started(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a Python file with a Parsl `config`"),
        ("x = 1", "expected a parsl.Config named `config`"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_wrong_configurations(tiny_run: Run, tmp_path: Path, text: str | None, message: str) -> None:
    recipe, config = tmp_path / "sweep.yaml", tmp_path / "config.py"
    recipe.write_text(f"checkpoints: {tiny_run.checkpoint}\nmethods: act\n")
    if text is not None:
        config.write_text(text)
    done = tinymem("sweep", recipe, "--engine", "parsl", "--config", config, "--device", "cpu", "--out", tmp_path / "sweep")
    assert message in done.one_line_error() and not (tmp_path / "sweep").exists()


def test_no_configuration(tiny_run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(f"checkpoints: {tiny_run.checkpoint}\nmethods: act\n")
    assert "expected --config with --engine parsl" in tinymem("sweep", recipe, "--engine", "parsl", "--device", "cpu").one_line_error()


@pytest.mark.processes
@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "cluster").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_are_configurations(path: Path) -> None:
    from tinymem.sweep.cluster import load_config

    (executor,) = load_config(path).executors
    assert executor.available_accelerators and executor.heartbeat_threshold <= 60
