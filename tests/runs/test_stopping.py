"""Pre-emption: told to stop by a signal, a run writes a resume point within the epoch and goes on from there, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import QUICKSTART, SMALLER, Killed, environment, equal_weights, half_written, python, sets, timeless, tinymem

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.errors import Stopped
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.runtime.progress import Progress
from tinymem.runtime.signals import stop_signals
from tinymem.training import loop
from tinymem.training.loop import train
from tinymem.training.state import load_state

REGULARIZERS = "[{kind: spectral-norm}, {kind: loss-truncation, window: 100, drop: 0.2}, {kind: goldfish, width: 3}, {kind: mem-sinks}]"
OVERRIDES = [*SMALLER, "training.epochs=3", f"training.regularizers={REGULARIZERS}"]


@pytest.fixture(scope="module")
def case() -> tuple[Recipe, Corpus]:
    recipe = load_recipe(QUICKSTART, OVERRIDES)
    return recipe, make_corpus(recipe)


@pytest.fixture(scope="module")
def whole(case: tuple[Recipe, Corpus], tmp_path_factory: pytest.TempPathFactory) -> loop.Trained:
    return train(*case, tmp_path_factory.mktemp("whole"))


def signal_in(monkeypatch: pytest.MonkeyPatch, steps: set[int], number: signal.Signals) -> None:
    """Send this process a signal in these steps, counted over all starts."""
    real, done = loop.Step._step, 0

    def step(self: Any, *arguments: Any) -> None:
        nonlocal done
        done += 1
        if done in steps:
            os.kill(os.getpid(), number)
        real(self, *arguments)

    monkeypatch.setattr(loop.Step, "_step", step)


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_in_the_middle_of_an_epoch(
    number: signal.Signals, case: tuple[Recipe, Corpus], whole: loop.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_epoch = whole.step // 3
    assert per_epoch > 6
    handler = signal.getsignal(number)
    signal_in(monkeypatch, {3, per_epoch + 4}, number)
    for epoch, step in ((0, 3), (1, 4)):  # the second start does the rest of the first epoch, and stops in the next
        with pytest.raises(
            Stopped, match=rf"stopped by {number.name} after step {step} of epoch {epoch + 1}; the same command goes on"
        ) as stop:
            train(*case, tmp_path)
        assert stop.value.code == (130 if number == signal.SIGINT else 75)
        state = load_state(tmp_path / "state")
        assert state is not None and (state.epoch, state.in_epoch, state.step) == (epoch, step, epoch * per_epoch + step)
    monkeypatch.undo()
    assert signal.getsignal(number) == handler
    again = train(*case, tmp_path)
    assert equal_weights(again.model, whole.model) and timeless(again.curve) == timeless(whole.curve)
    assert again.seconds > 0 and again.facts.energy["hours"] >= again.seconds / 3600


@pytest.mark.training
def test_a_second_ctrl_c_ends_it_at_once(case: tuple[Recipe, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.Step._step

    def step(self: Any, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        real(self, *arguments)

    monkeypatch.setattr(loop.Step, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(*case, tmp_path)
    assert load_state(tmp_path / "state") is None and not half_written(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_ignored_signals_stay_ignored(number: signal.Signals) -> None:
    """As `nohup` and background jobs of a shell have them."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), number)
        assert stop.name is None and signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.training
def test_a_resume_point_after_a_while(
    case: tuple[Recipe, Corpus], whole: loop.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed without a signal loses no more than SAVE_SECONDS, however long an epoch takes."""
    now, real = 0.0, loop.Step._step
    monkeypatch.setattr(loop.time, "monotonic", lambda: now)

    def step(self: Any, *arguments: Any) -> None:
        nonlocal now
        now += loop.SAVE_SECONDS / 3
        real(self, *arguments)

    monkeypatch.setattr(loop.Step, "_step", step)
    found: list[int] = []
    save = loop.save_state

    def saved(directory: Path, state: Any, **options: Any) -> None:
        found.append(state.step)
        save(directory, state, **options)
        if len(found) == 2:
            raise Killed

    monkeypatch.setattr(loop, "save_state", saved)
    with pytest.raises(Killed):
        train(*case, tmp_path)
    assert found == [3, 6]
    monkeypatch.undo()
    state = load_state(tmp_path / "state")
    assert state is not None and (state.epoch, state.in_epoch) == (0, 6) and state.busy_seconds >= state.seconds > 0
    again = train(*case, tmp_path)
    assert equal_weights(again.model, whole.model) and timeless(again.curve) == timeless(whole.curve)


@pytest.mark.training
def test_at_the_last_step_of_an_epoch(
    case: tuple[Recipe, Corpus], whole: loop.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(monkeypatch, {whole.step // 3}, signal.SIGTERM)
    with pytest.raises(Stopped, match="after epoch 1;"):
        train(*case, tmp_path)
    monkeypatch.undo()
    assert load_state(tmp_path / "state").epoch == 1
    assert equal_weights(train(*case, tmp_path).model, whole.model)


def signal_in_last_measurement(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    real = loop._Run._measure

    def measure(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        if self.epoch == self.recipe.training.epochs:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop._Run, "_measure", measure)


def signal_in_last_save(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    real = loop._Run._save

    def save(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        if self.epoch == self.recipe.training.epochs:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop._Run, "_save", save)


@pytest.mark.training
def test_at_the_very_end_it_is_trained(
    case: tuple[Recipe, Corpus], whole: loop.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(monkeypatch, {whole.step}, signal.SIGTERM)
    trained = train(*case, tmp_path)
    assert equal_weights(trained.model, whole.model) and whole.stopped is None
    assert str(trained.stopped) == "stopped by SIGTERM after epoch 3, the last; the same command goes on from here"


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["step", "measurement", "save"])
def test_at_the_very_end_of_training_the_methods_do_not_begin(
    number: signal.Signals, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trained model is kept, and the same command goes on with the methods."""
    words = (*sets([*SMALLER, "training.epochs=1", "mitigation.methods=[{random-neurons: {ratio: 0.1}}]"]), "--device", "cpu")
    at_end = {"measurement": signal_in_last_measurement, "save": signal_in_last_save}
    with monkeypatch.context() as patch:
        if when == "step":
            recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1"])
            rows = len(make_corpus(recipe).training_rows()[1])
            signal_in(patch, {-(-rows // recipe.training.batch_size)}, number)
        else:
            at_end[when](patch, number)
        done = tinymem("run", QUICKSTART, *words, "--runs", tmp_path)
    expected = f"stopped by {number.name} after epoch 1, the last; the same command goes on from here"
    assert done.last_line_error(130 if number == signal.SIGINT else 75) == expected
    assert list(tmp_path.glob("*/checkpoint/model.safetensors")) and not list(tmp_path.glob("*/results"))
    again = tinymem("run", QUICKSTART, *words, "--runs", tmp_path)
    assert again.code == 0 and "found the trained model" in again.err and list(tmp_path.glob("*/results/*.json"))


@pytest.mark.training
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_the_command_line(number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_in(monkeypatch, {12}, number)
    done = tinymem("train", QUICKSTART, *sets([*SMALLER, "training.epochs=300"]), "--device", "cpu", "--runs", tmp_path)
    assert done.last_line_error(code).startswith(f"stopped by {number.name} after step ")
    assert list(tmp_path.glob("*/training/state/epoch-*"))
    assert not half_written(tmp_path) and not list(tmp_path.glob("*/checkpoint"))


@pytest.mark.processes
def test_without_its_supervisor_a_process_stops(tmp_path: Path) -> None:
    code = "import time\nfrom tinymem.runtime.signals import hold_lifeline\nhold_lifeline()\nprint('on', flush=True)\ntime.sleep(60)"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, env={**environment(), "TINYMEM_LIFELINE": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "on\n" and process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=30) == -signal.SIGTERM
    process.stdout.close()


IMPORTED = """
import os, signal, threading, time, tinymem.cli
def press():
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press, daemon=True).start()
import slow
"""


@pytest.mark.processes
def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """One line, also where the module would catch it."""
    (tmp_path / "slow.py").write_text("import time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    print('caught')\n")
    (tmp_path / "first.py").write_text(IMPORTED)
    done = python(tmp_path / "first.py")
    assert done.one_line_error(130) == "interrupted at once; the same command goes on from what is written" and not done.out


@pytest.mark.processes
def test_little_is_imported_before_ctrl_c_is_quiet() -> None:
    """What a key pressed at the very start could interrupt with a traceback: no library, and none of ours with more than a few lines."""
    code = (
        "import sys\nbefore = set(sys.modules)\nimport tinymem.cli\nnow = set(sys.modules) - before\n"
        "print(*(m for m in now if m.split('.')[0] not in sys.stdlib_module_names or m in ('typing', 'inspect', 're', 'dataclasses')))"
    )
    found = set(python("-c", code).out.split())
    assert found == {"tinymem", "tinymem.cli", "tinymem.runtime", "tinymem.runtime.interrupts"}


@pytest.mark.thorough
@pytest.mark.processes
def test_a_reader_that_goes(tmp_path: Path) -> None:
    """As `| head -1` does: not a word, and the exit code that shells give tools without a reader."""
    for words in ("-h", "methods", "new method mine --dir ."):
        command = f"{sys.executable} -m tinymem {words} | (exec 0<&-; sleep 0.1); exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stderr) == (141, ""), words


def test_time_left_is_that_of_this_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier start did took it time, not this one."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Progress(show=True).stage("train it", 100, done=80) as bar:
        now += 20
        bar.advance(5)
    assert capsys.readouterr().err == "train it: 85%, 20 s, 1 min left  \n"
