"""What only a process of its own shows: imports of each verb, Ctrl-C, and the files of `new`."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from helpers import QUICKSTART, SMALLER, Done, half_written, python, sets, started_tinymem, tinymem

from tinymem import __version__
from tinymem.cli.new import REGISTRIES
from tinymem.runs.pipeline import Run

HEAVY = {"torch", "pydantic", "lightning", "transformers", "datasets", "matplotlib", "pyarrow"}
# Runs verbs one after the other and says after each which heavy modules are loaded.
WATCH = """
import sys
from tinymem.cli import main as cli
for words in {verbs!r}:
    sys.argv = ["tinymem", *words]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, words
    print("LOADED", words[0], *sorted({heavy!r} & set(sys.modules)))
"""


def loaded(*verbs: list[str]) -> dict[str, set[str]]:
    done = python("-c", WATCH.format(verbs=verbs, heavy=HEAVY))
    assert done.code == 0, done.err
    lines = [line.split()[1:] for line in done.out.splitlines() if line.startswith("LOADED")]
    return {verb: set(modules) for verb, *modules in lines}


@pytest.mark.processes
def test_what_names_alone_tell_is_refused_before_torch_is_read(tmp_path: Path) -> None:
    """A method that is none, a run for a checkpoint, and files that are missing or empty, all of them at once."""
    (tmp_path / "checkpoint").mkdir()
    for name in ("checkpoint/config.json", "empty.jsonl"):
        (tmp_path / name).touch()
    model, rows = str(tmp_path / "checkpoint"), ["--forget", str(tmp_path / "empty.jsonl"), "--retain", "nowhere.jsonl"]
    refused = {
        "did you mean 'balanced-subnet'": ["mitigate", model, "--method", "balanced_subnet"],
        "did you mean 'act'": ["run", str(QUICKSTART), "--set", "mitigation.methods=akt", "--runs", str(tmp_path / "runs")],
        f"got the run {tmp_path}; try {model}": ["mitigate", str(tmp_path), "--method", "act"],
        f"--retain at nowhere.jsonl, found none; and rows for --forget, found no rows in {rows[1]}": ["evaluate", model, *rows],
    }
    done = python("-c", WATCH.format(verbs=[*refused.values()], heavy={"torch"}).replace("assert not stop.code", "assert stop.code == 2"))
    assert done.code == 0 and "torch" not in done.out, done.err
    for line, said in zip(done.err.splitlines(), refused, strict=True):
        assert said in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.processes
def test_help_imports_nothing_heavy() -> None:
    assert loaded(["--help"])["--help"] == set()
    found = loaded(["run", "--help"], ["mitigate", "--help"], ["methods", "--help"])
    assert set.union(*found.values()) <= {"pydantic"}  # typer itself imports that to read some options


@pytest.mark.thorough
@pytest.mark.processes
def test_verbs_import_what_they_need(tiny_run: Run, tmp_path: Path) -> None:
    """Lightning is for several processes, the others for files and models of theirs."""
    found = loaded(
        ["report", str(tiny_run.path), "--format", "json"],
        ["methods"],
        ["evaluate", str(tiny_run.checkpoint)],
        ["mitigate", str(tiny_run.checkpoint), "--method", "finetune-clean", "--epochs", "1"],
        ["report", str(tiny_run.path)],
        ["train", str(QUICKSTART), *sets(SMALLER), "--device", "cpu", "--runs", str(tmp_path)],
    )
    assert set(found) == {"report", "methods", "evaluate", "mitigate", "train"}
    assert "torch" in found["mitigate"]
    assert not any({"lightning", "transformers", "datasets"} & modules for modules in found.values())


@pytest.mark.processes
def test_reporting_needs_no_torch(tiny_run: Run) -> None:
    assert loaded(["report", str(tiny_run.path)])["report"] <= {"pydantic"}


@pytest.mark.processes
def test_import_tinymem_is_light() -> None:
    done = python("-c", "import sys, tinymem; dir(tinymem); print([m for m in ('torch', 'pydantic', 'typer') if m in sys.modules])")
    assert done.out.strip() == "[]"


def test_without_words_there_is_help() -> None:
    done = tinymem()
    assert done.code == 0 and " new " in done.out


def test_short_questions() -> None:
    assert tinymem("--version") == Done(0, f"tinymem {__version__}\n", "")
    for words in ((), ("run",), ("data", "make"), ("mitigate",)):
        short, long = tinymem(*words, "-h"), tinymem(*words, "--help")
        assert short == long and short.code == 0 and "-h" in short.out


@pytest.mark.thorough
@pytest.mark.processes
def test_ctrl_c(tmp_path: Path) -> None:
    words = ("train", QUICKSTART, *sets([*SMALLER, "training.epochs=300"]), "--device", "cpu", "--runs", tmp_path)
    with started_tinymem(*words) as process:
        while process.poll() is None and not list(tmp_path.glob("*/training/state/epoch-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    message = Done(process.returncode, out, err).last_line_error(130)
    assert message.startswith("stopped by SIGINT after ") and message.endswith("; the same command goes on from here")
    assert not half_written(tmp_path) and not list(tmp_path.glob("*/checkpoint"))
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    epochs = sorted(int(path.name.split("-")[1]) for path in (run / "training" / "state").iterdir())
    assert 0 < epochs[-1] < 300


@pytest.mark.thorough
@pytest.mark.processes
def test_new(tmp_path: Path) -> None:
    """Both files of each kind work as they are written: the tests pass, and skip nothing."""
    for kind in REGISTRIES:
        name, module = f"my-{kind}", f"my_{kind}"
        done = tinymem("new", kind, name, "--dir", tmp_path)
        assert done.code == 0
        assert done.out.split() == [str(tmp_path / f"{module}.py"), str(tmp_path / f"test_{module}.py")]
        assert "found one" in tinymem("new", kind, name, "--dir", tmp_path).one_line_error()
    tested = python("-m", "pytest", "-v", "-p", "no:cacheprovider", cwd=tmp_path)
    assert tested.code == 0 and not {"FAILED", "ERROR", "SKIPPED"} & set(tested.out.split()), tested.out
    assert {line.partition("::")[0] for line in tested.out.splitlines() if " PASSED" in line} == {
        f"test_my_{kind}.py" for kind in REGISTRIES
    }
