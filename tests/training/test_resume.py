"""A run that is killed and started again ends bit for bit like one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights, half_written, sets, started_tinymem, timeless, tinymem

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.results.curve import CurvePoint, read_curve
from tinymem.runs.pipeline import train_only
from tinymem.training import loop
from tinymem.training.loop import Trained, train
from tinymem.training.state import load_state

LONGER = [*SMALLER, "training.epochs=8", "training.evaluate_every=3"]


def curve_of(run: Path) -> list[CurvePoint]:
    return timeless(read_curve(run / "training" / "metrics.jsonl"))


@pytest.fixture(scope="module")
def case() -> tuple[Recipe, Corpus]:
    recipe = load_recipe(QUICKSTART, LONGER)
    return recipe, make_corpus(recipe)


@pytest.fixture(scope="module")
def finished(case: tuple[Recipe, Corpus], tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return train(*case, folder), folder


@pytest.fixture
def whole(finished: tuple[Trained, Path]) -> Trained:
    """A training run that nothing stopped."""
    return finished[0]


@pytest.fixture
def folder(finished: tuple[Trained, Path], tmp_path: Path) -> Path:
    """A copy of what it left."""
    return shutil.copytree(finished[1], tmp_path / "copy")


class Killed(BaseException):
    """Stands for the end of the process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training die in its `step`-th step."""
    real, done = loop.batch_loss, 0

    def dying(*arguments: Any) -> torch.Tensor:
        nonlocal done
        done += 1
        if done > step:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(loop, "batch_loss", dying)


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.parametrize("seed", range(2))
def test_stopped_at_any_step(
    seed: int, case: tuple[Recipe, Corpus], whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in random.Random(seed).sample(range(whole.curve[-1].step // 2), 2):  # twice, so that a resumed run is resumed
        stop_at(monkeypatch, step)
        with pytest.raises(Killed):
            train(*case, tmp_path)
        monkeypatch.undo()
    again = train(*case, tmp_path)
    assert equal_weights(again.model, whole.model)
    assert timeless(again.curve) == timeless(whole.curve)


@pytest.mark.training
def test_stopped_before_the_first_measurement(case: tuple[Recipe, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = case[0].model_copy(update={"training": case[0].training.model_copy(update={"evaluate_every": 6})})
    stop_at(monkeypatch, 3 * (-(-len(case[1].training_rows()[1]) // recipe.training.batch_size)))  # a resume point, no measurement
    with pytest.raises(Killed):
        train(recipe, case[1], tmp_path)
    monkeypatch.undo()
    assert [point.epoch for point in train(recipe, case[1], tmp_path).curve] == [0, 6, 8]


@pytest.mark.training
@pytest.mark.parametrize("beyond", [-1, 1])
def test_stopped_before_or_after_the_middle_of_the_only_epoch(beyond: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured there once, which changes no weight."""
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1", "training.evaluate_every=1"])
    ends, corpus = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1", "training.evaluate_every=2"]), make_corpus(recipe)
    whole, at_ends = train(recipe, corpus, tmp_path / "whole"), train(ends, corpus, tmp_path / "ends")
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)  # a resume point after each step
    stop_at(monkeypatch, whole.curve[-1].step // 2 + beyond)
    with pytest.raises(Killed):
        train(recipe, corpus, tmp_path / "stopped")
    monkeypatch.undo()
    again = train(recipe, corpus, tmp_path / "stopped")
    assert timeless(again.curve) == timeless(whole.curve) and len(whole.curve) == 3
    assert timeless(at_ends.curve) == [point for point in timeless(whole.curve) if not point.part]
    assert equal_weights(again.model, whole.model) and equal_weights(at_ends.model, whole.model)


@pytest.mark.training
def test_two_resume_points_are_kept(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "state").iterdir()) == ["epoch-000006", "epoch-000008"]


@pytest.mark.training
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "counters"])
def test_damaged_resume_point(damage: str, case: tuple[Recipe, Corpus], whole: Trained, folder: Path) -> None:
    newest = folder / "state" / "epoch-000008"
    path = newest / "state.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "remove":
        path.unlink()
    else:
        (newest / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="damaged resume point"):
        state = load_state(folder / "state")
    assert state is not None and state.epoch == 6
    with pytest.warns(UserWarning, match="damaged resume point"):
        again = train(*case, folder)
    assert equal_weights(again.model, whole.model) and timeless(again.curve) == timeless(whole.curve)
    assert load_state(folder / "state").epoch == 8


@pytest.mark.training
def test_no_resume_point_is_whole(folder: Path) -> None:
    for path in (folder / "state").rglob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning):
        assert load_state(folder / "state") is None


LONG = [*SMALLER, "training.epochs=40", "training.checkpoint_every=4", "training.evaluate_every=7", "training.keep_epochs=[5, 25]"]


@pytest.mark.thorough
@pytest.mark.training
@pytest.mark.processes
@pytest.mark.usefixtures("one_thread")
def test_killed_process(tmp_path: Path) -> None:
    with started_tinymem("train", QUICKSTART, *sets(LONG), "--device", "cpu", "--runs", tmp_path / "killed") as process:
        while process.poll() is None and not list(tmp_path.glob("killed/*/training/state/epoch-*")):
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0, 0.4))  # anywhere: in a step, a measurement, or while a resume point is written
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the process ended before it could be killed: {errors}"
    recipe = load_recipe(QUICKSTART, LONG)
    killed = tmp_path / "killed" / recipe.run_id()
    assert not (killed / "checkpoint").exists(), "the process had finished before it was killed"
    assert train_only(recipe, runs=tmp_path / "killed", device="cpu").path == killed
    whole = train_only(recipe, runs=tmp_path / "whole", device="cpu").path
    for part in ("checkpoint", "checkpoints/epoch-000005", "checkpoints/epoch-000025"):
        weights = [(run / part / "model.safetensors").read_bytes() for run in (whole, killed)]
        assert weights[0] == weights[1], part
    assert curve_of(whole) == curve_of(killed)
    assert not half_written(killed)


@pytest.mark.training
def test_killed_between_training_and_checkpoint(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART, SMALLER)
    made = train_only(recipe, runs=tmp_path)
    weights = (made.checkpoint / "model.safetensors").read_bytes()
    shutil.rmtree(made.checkpoint)
    for name in (".checkpoint.1.ab.tmp", "training/.metrics.jsonl.1.ab.tmp", "checkpoints/.epoch-000001.1.ab.tmp"):
        (made.path / name).mkdir(parents=True)
    done = tinymem("train", QUICKSTART, *sets(SMALLER), "--runs", tmp_path)
    assert done.code == 0 and Path(done.out.strip()) == made.checkpoint
    assert (made.checkpoint / "model.safetensors").read_bytes() == weights
    assert not half_written(made.path)
