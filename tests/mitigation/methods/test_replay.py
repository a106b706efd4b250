"""Unlearners whose steps a GPU replays: on recorded steps they do what they do step by step."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from helpers import equal_weights
from recorded_graphs import Recorder, recorded_graphs

from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods import replay as _replay
from tinymem.mitigation.methods.neuron import hard_concrete, slim
from tinymem.testing import tiny_case

ENOUGH: dict[str, dict[str, Any]] = {
    "slim": {"epochs": 20, "batch_size": 4, "stop": 0.4},
    "hard-concrete": {"epochs": 20, "batch_size": 4},
    "greedy": {"ratio": 0.05, "batch_size": 4},
    "subnet": {"ratio": 0.2, "epochs": 20, "batch_size": 4},
    "balanced-subnet": {"ratio": 0.2, "epochs": 6, "batch_size": 4},
}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Steps are recorded as on a GPU."""
    tiny_case("llama")  # transformers imports modules on use, some of which name torch's graphs
    recorder, plain = recorded_graphs(monkeypatch), _replay.Replayed.__init__

    def start(self: Any, function: Any, model: Any, **options: Any) -> None:
        plain(self, recorder.wrap(function), model, **options)

    monkeypatch.setattr(_replay.Replayed, "__init__", start)
    return recorder


@pytest.mark.thorough
@pytest.mark.parametrize("name", ENOUGH)
def test_as_step_by_step(name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    method, (model, data) = UNLEARNERS.get(name), tiny_case("gpt")
    config = method.config(**ENOUGH[name])
    eager = apply(method, model, data, config)
    assert not recorder.graphs
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    replayed = apply(method, model, data, config)
    assert recorder.graphs and recorder.graphs[0].replays >= 10
    assert equal_weights(eager, replayed)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt", "llama"])
@pytest.mark.parametrize("by_row", [slim.by_row, hard_concrete.by_row])
def test_rows_apart(by_row: Any, family: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_case(family)
    config = (slim.SlimConfig if by_row is slim.by_row else hard_concrete.HardConcreteConfig)(epochs=30, stop=0.0)
    eager = by_row(model, data, config)
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    assert torch.equal(by_row(model, data, config), eager)
    assert recorder.graphs[0].replays == 30 - _replay.WARM_UP_STEPS


def test_each_size_of_batch_is_recorded_once(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    model, seen = tiny_case("gpt")[0], list[int]()
    first = _replay.WARM_UP_STEPS
    for loaded, replays in ((False, [14 - first, 5 - first]), (True, [14, 5 - first])):
        recorder.graphs.clear()
        seen.clear()
        step = _replay.Replayed(lambda index: seen.extend(index.flatten().tolist()), model, steps=99, loaded=loaded)
        batches = [torch.arange(20 * n, 20 * n + size) for n in range(5) for size in ((4,) * 3 if n else (4,) * 2) + (3,)]
        for batch in batches:
            step(batch)
        assert seen == [row for batch in batches for row in batch.tolist()], "each step once, in order"
        assert [graph.replays for graph in recorder.graphs] == replays
    step = _replay.Replayed(lambda index: seen.append(len(index)), model, steps=99)
    for size in range(1, 9):
        for _ in range(5):
            step(torch.zeros(size, dtype=torch.int64))
    assert len(step.recorded) == _replay.MOST_SHAPES


def test_what_is_left_of_steps_together_comes_one_by_one() -> None:
    batches = [torch.arange(k, k + size) for k, size in enumerate((3,) * 7 + (2,))]
    found = [part.shape for part in _replay.together(batches, 3, torch.device("cpu"))]
    assert found == [(3, 3), (3, 3), (1, 3), (1, 2)]
    assert torch.equal(torch.cat([part.flatten() for part in _replay.together(batches, 3, torch.device("cpu"))]), torch.cat(batches))


def test_steps_that_are_gone_leave_their_stream_to_others(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    monkeypatch.setattr(_replay, "_UNUSED", {})
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    model = tiny_case("gpt")[0]
    first, second = (_replay.Replayed(print, model, steps=99) for _ in range(2))
    assert first.stream is not second.stream, "graphs that share one cannot run side by side"
    stream = first.stream
    del first
    gc.collect()
    third, fourth = (_replay.Replayed(print, model, steps=99) for _ in range(2))
    assert third.stream is stream
    assert len({id(steps.stream) for steps in (second, third, fourth)}) == 3


def test_few_steps_are_not_recorded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    model, data = tiny_case("gpt")
    subnet = UNLEARNERS.get("subnet")
    apply(subnet, model, data, subnet.config(epochs=2))
    assert not recorder.graphs


def test_steps_in_half_precision_of_other_families_are_not_recorded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "_on_gpu", lambda device: True)
    model, data = tiny_case("llama")
    slim.by_row(model.bfloat16(), data, slim.SlimConfig(epochs=20, stop=0.0))
    assert not recorder.graphs
