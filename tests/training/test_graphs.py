"""The step as GPUs run it, on a CPU: a stand-in for CUDA graphs, and the flat optimizer, its kernel written out. So what is kept, put back
and restored in which order is tested here."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, Killed, die_after_first_save, equal_weights
from recorded_graphs import recorded_graphs

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.errors import Stopped
from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.training import loop
from tinymem.training.loop import Trained, train
from tinymem.training.optimizer import optimizer_tensors
from tinymem.training.state import load_state
from tinymem.training.step import GraphedStep

EACH = "{kind: spectral-norm}, {kind: loss-truncation, window: 100, drop: 0.2}, {kind: goldfish, width: 3}, {kind: mem-sinks}"
SCHEDULE = ["training.schedule=cosine", "training.warmup_steps=3"]


def flat_adamw_by_hand(p: Any, g: Any, m: Any, v: Any, lr: Any, step: Any, n: int, b1: float, b2: float, *rest: Any, **_: Any) -> None:
    """What the kernel does to its flat buffers."""
    decay, eps = rest[2], rest[3]
    m.mul_(b1).add_(g, alpha=1 - b1)
    v.mul_(b2).addcmul_(g, g, value=1 - b2)
    p.mul_(1 - lr * decay).sub_(lr / (1 - b1**step) * m / (v.sqrt() / (1 - b2**step).sqrt() + eps))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[GraphedStep]:
    """Train with recorded steps and the flat optimizer; the steps of each start."""
    triton: Any = types.ModuleType("triton")
    triton.language = types.ModuleType("triton.language")
    triton.language.constexpr = int
    triton.jit, triton.cdiv = lambda kernel: {(1,): flat_adamw_by_hand}, lambda *_: 1
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", triton.language)
    monkeypatch.delitem(sys.modules, "tinymem.training.kernels.flat_adamw", raising=False)
    from tinymem.training.kernels.flat_adamw import FlatAdamW

    monkeypatch.delitem(sys.modules, "tinymem.training.kernels.flat_adamw")
    recorder, steps = recorded_graphs(monkeypatch), []

    def make_step(*arguments: Any, **options: Any) -> GraphedStep:
        steps.append(GraphedStep(*arguments, **options))
        steps[-1]._step = recorder.wrap(steps[-1]._step)  # type: ignore[method-assign]
        return steps[-1]

    def make_optimizer(parameters: Any, config: Any, **_: Any) -> FlatAdamW:
        rate = torch.tensor(config.learning_rate)
        return FlatAdamW(parameters, lr=rate, betas=config.betas, weight_decay=config.weight_decay)

    def copies(optimizer: Any) -> dict[str, torch.Tensor]:
        return {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}  # as the way from a GPU makes them

    monkeypatch.setattr(loop, "optimizer_tensors", copies)
    monkeypatch.setattr(loop, "Step", make_step)
    monkeypatch.setattr(loop, "make_optimizer", make_optimizer)
    return steps


def case(*overrides: str) -> tuple[Recipe, Corpus]:
    recipe = load_recipe(QUICKSTART, [*SMALLER, *SCHEDULE, f"training.regularizers=[{EACH}]", *overrides])
    return recipe, make_corpus(recipe)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    """All but the biases of the keys, which have no gradient but rounding, which AdamW blows up."""
    return {name: w for name, w in trained.model.state_dict().items() if not name.endswith("c_attn.bias")}


@pytest.fixture
def eager(tmp_path: Path) -> tuple[Recipe, Corpus, Trained]:
    recipe, corpus = case()
    return recipe, corpus, train(recipe, corpus, tmp_path / "eager")


@pytest.mark.training
def test_recorded_steps(
    eager: tuple[Recipe, Corpus, Trained], as_on_a_gpu: list[GraphedStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are eager ones, warm-up and two sizes of batch included; and stopped within an epoch, they go on bit for bit."""
    recipe, corpus, plain = eager
    whole = train(recipe, corpus, tmp_path / "whole")
    assert len(as_on_a_gpu[0]._graphs) == 2, "the last batch of an epoch is shorter"
    found = weights(whole)
    assert all(torch.allclose(w, found[name], atol=1e-4) for name, w in weights(plain).items())
    losses = [[point.train_loss for point in trained.curve[1:]] for trained in (whole, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    per_epoch, real = whole.step // 2, loop._Run._pause

    def stopping_at(step: int) -> Callable[[loop._Run, float], None]:
        def pause(run: loop._Run, started: float) -> None:
            run.stop.name = "SIGTERM" if run.steps == step else None
            real(run, started)

        return pause

    for step in (2, per_epoch + 3):
        monkeypatch.setattr(loop._Run, "_pause", stopping_at(step))
        with pytest.raises(Stopped):
            train(recipe, corpus, tmp_path / "cut")
    monkeypatch.setattr(loop._Run, "_pause", real)
    again = train(recipe, corpus, tmp_path / "cut")
    assert len(as_on_a_gpu) == 4 and equal_weights(again.model, whole.model)
    assert [p.train_loss for p in again.curve[1:]] == losses[0]
    states = [load_state(tmp_path / name / "state") for name in ("whole", "cut")]
    assert states[0] is not None and states[1] is not None
    tensors, others = states[0].tensors(), states[1].tensors()
    assert tensors.keys() == others.keys() and all(torch.equal(t, others[n]) for n, t in tensors.items())


@pytest.mark.training
def test_the_graph_is_of_the_rows_device(as_on_a_gpu: list[GraphedStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--device cuda:1` the current device is still the first one, where nothing of the step would be recorded."""
    devices: list[Any] = []
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: devices.append(device) or stream)
    train(*case(), tmp_path)
    assert len(devices) == 4 and set(devices) == {torch.device("cpu")}


@pytest.mark.training
def test_moments_without_memory(as_on_a_gpu: list[GraphedStep], tmp_path: Path) -> None:
    """Betas of 0 are AdamW's too; their logarithm is not finite."""
    trained = train(*case("training.betas=[0, 0]"), tmp_path)
    assert trained.curve[-1].train_loss > 0 and len(as_on_a_gpu) == 1


@pytest.mark.training
def test_recorded_and_eager_runs_go_on_from_each_other(
    as_on_a_gpu: list[GraphedStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun on a GPU in fp32 goes on where there is none."""
    recipe, corpus = case()
    whole = train(recipe, corpus, tmp_path / "whole")
    die_after_first_save(monkeypatch)
    with pytest.raises(Killed):
        train(recipe, corpus, tmp_path / "cut")
    monkeypatch.undo()
    found = weights(train(recipe, corpus, tmp_path / "cut"))
    assert all(torch.allclose(w, found[name], atol=1e-4) for name, w in weights(whole).items())
