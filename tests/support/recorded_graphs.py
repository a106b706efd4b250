"""A stand-in for CUDA graphs on a CPU: as they do, it records a step without doing it and repeats it on the same tensors."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch


class Graph:
    """Repeats what was recorded, and counts how often."""

    step: Callable[[], None]
    replays = 0

    def pool(self) -> tuple[int, int]:
        return 0, 0

    def replay(self) -> None:
        self.replays += 1
        self.step()


class Recorder:
    """The graph that is being recorded, and all that were."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.recording: Graph | None = None

    @contextmanager
    def graph(self, graph: Graph, **_: Any) -> Iterator[None]:
        self.graphs.append(graph)
        self.recording = graph
        yield
        self.recording = None

    def wrap(self, step: Callable[..., None]) -> Callable[..., None]:
        """The step, which does nothing while it is recorded."""

        def run(*arguments: Any) -> None:
            if self.recording is not None:
                self.recording.step = lambda: step(*arguments)
            else:
                step(*arguments)

        return run


def recorded_graphs(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Put the stand-in in place of CUDA's graphs and streams."""
    recorder, stream = Recorder(), types.SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recorder.graph)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: stream)
    return recorder
