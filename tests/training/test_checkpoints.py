"""Kept checkpoints: models of earlier epochs as training left them, with the optimizer's state that fine-tuning goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights, sets, tinymem

from tinymem.errors import UserError
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.runs.pipeline import Run, is_trained, train_only
from tinymem.training import loop
from tinymem.training.state import load_state

# Tied neurons fold into the weights of a checkpoint, and must not do so in those that training goes on with.
RECIPE = [
    *SMALLER,
    "artifacts.backdoor.copies=10",
    "training.epochs=4",
    "training.evaluate_every=4",
    "training.regularizers=[{kind: mem-sinks}]",
]
KEEP = "training.keep_epochs=[1, 3, 4, 90]"


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe(QUICKSTART, [*RECIPE, *overrides])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_only(recipe_of(KEEP), runs=tmp_path_factory.mktemp("kept"), device="cpu")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def metadata(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tinymem.json").read_text())


@pytest.mark.training
def test_what_is_kept(kept: Run) -> None:
    assert names(kept.path / "checkpoints") == ["epoch-000001", "epoch-000003"]
    assert names(kept.path / "training" / "state") == ["epoch-000001", "epoch-000003", "epoch-000004"]
    assert [point.epoch for point in loop.read_curve(kept.path / "training" / "metrics.jsonl")] == [0, 1, 3, 4]
    for folder, epoch in ((kept.path / "checkpoints" / "epoch-000003", 3), (kept.checkpoint, 4)):
        facts = metadata(folder)
        assert facts["epoch"] == facts["metrics"]["epoch"] == epoch and facts["step"] == facts["metrics"]["step"]
        assert facts["recipe"] == kept.recipe.model_dump(mode="json") and facts["corpus_sha256"] == kept.corpus().sha256()
        assert facts["precision"] == "fp32" and facts["device"] == "cpu" and facts["training_seconds"] > 0
    assert recipe_of().run_id() == kept.recipe.run_id(), "keeping changes no weight"


@pytest.mark.training
def test_a_kept_model_is_that_of_a_run_that_ended_there(kept: Run, tmp_path: Path) -> None:
    constant = [o for o in RECIPE if "schedule" not in o]  # a cosine knows its end
    whole = train_only(load_recipe(QUICKSTART, [*constant, KEEP, "training.schedule=constant"]), runs=tmp_path, device="cpu")
    short = train_only(load_recipe(QUICKSTART, [*constant, "training.epochs=3", "training.schedule=constant"]), runs=tmp_path, device="cpu")
    one = load_checkpoint(whole.path / "checkpoints" / "epoch-000003")
    assert equal_weights(one.model, load_checkpoint(short.checkpoint).model)
    assert (
        metadata(whole.path / "checkpoints" / "epoch-000003")["metrics"]["memorized"] == metadata(short.checkpoint)["metrics"]["memorized"]
    )
    states = [load_state(run.path / "training" / "state", 3) for run in (whole, short)]
    assert all(torch.equal(t, states[1].optimizer[n]) for n, t in states[0].optimizer.items())


@pytest.mark.training
def test_training_goes_on_unfolded(kept: Run, tmp_path: Path) -> None:
    plain = train_only(recipe_of(), runs=tmp_path, device="cpu")
    assert (plain.checkpoint / "model.safetensors").read_bytes() == (kept.checkpoint / "model.safetensors").read_bytes()


@pytest.mark.training
def test_transformers_loads_it(kept: Run) -> None:
    from transformers import AutoModelForCausalLM

    folder = kept.path / "checkpoints" / "epoch-000001"
    ids = torch.from_numpy(kept.corpus().clean[:5].astype("int64"))
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.allclose(theirs(ids).logits, load_checkpoint(folder).model(ids), atol=1e-5)


@pytest.mark.training
def test_verbs_find_its_corpus_and_its_optimizer(kept: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinymem.runs import subjects as command

    folder = kept.path / "checkpoints" / "epoch-000003"
    seen: list[dict[str, torch.Tensor]] = []
    real = command.subject_of_corpus

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append(options["optimizer_state"])
        return real(*arguments, **options)

    monkeypatch.setattr(command, "subject_of_corpus", spy)
    done = tinymem("mitigate", folder, "--method", "finetune-clean", "--epochs", 1, "--format", "json")
    assert done.code == 0, done.err
    state = load_state(kept.path / "training" / "state", 3)
    assert state is not None and state.epoch == 3
    assert seen[0].keys() == state.optimizer.keys() and all(torch.equal(t, state.optimizer[n]) for n, t in seen[0].items())
    measured = json.loads(tinymem("evaluate", folder, "--json").out)
    curve = {point.epoch: point for point in loop.read_curve(kept.path / "training" / "metrics.jsonl")}
    shares = {kind: {name: share[name] for name in ("share", "count", "rows")} for kind, share in measured["memorized"].items()}
    assert shares == curve[3].memorized and measured["accuracy"] == curve[3].accuracy


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.training
def test_killed_between_the_resume_point_and_the_checkpoint(kept: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(loop._Run, "_keep", die)
    with pytest.raises(Killed):
        train_only(recipe_of(KEEP), runs=tmp_path, device="cpu")
    monkeypatch.undo()
    assert not (tmp_path / kept.path.name / "checkpoints").exists()
    again = train_only(recipe_of(KEEP), runs=tmp_path, device="cpu")
    for part in ("checkpoints/epoch-000001", "checkpoints/epoch-000003", "checkpoint"):
        weights = [(run.path / part / "model.safetensors").read_bytes() for run in (kept, again)]
        assert weights[0] == weights[1], part


@pytest.mark.training
def test_a_lost_checkpoint_is_made_of_its_resume_point(kept: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(kept.path, tmp_path / "runs" / kept.path.name), kept.recipe)
    shutil.rmtree(run.path / "checkpoints" / "epoch-000001")
    assert not is_trained(tmp_path / "runs", run.recipe)
    with pytest.raises(UserError, match=r"without keeping epochs \[1\]"):
        train_only(run.recipe, runs=tmp_path / "runs", device="cpu")
    shutil.rmtree(run.checkpoint)
    train_only(run.recipe, runs=tmp_path / "runs", device="cpu")
    weights = [(r.path / "checkpoints" / "epoch-000001" / "model.safetensors").read_bytes() for r in (kept, run)]
    assert weights[0] == weights[1] and is_trained(tmp_path / "runs", run.recipe)


@pytest.mark.training
def test_an_epoch_that_is_past(tmp_path: Path) -> None:
    overrides = [*RECIPE, "training.epochs=2", "training.checkpoint_every=1"]
    made = train_only(load_recipe(QUICKSTART, overrides), runs=tmp_path, device="cpu")
    shutil.rmtree(made.checkpoint)
    shutil.rmtree(made.path / "training" / "state" / "epoch-000001")
    done = tinymem("train", QUICKSTART, *sets([*overrides, "training.keep_epochs=[1]"]), "--runs", tmp_path, "--device", "cpu")
    assert "expected to keep epoch 1, but" in done.last_line_error()
