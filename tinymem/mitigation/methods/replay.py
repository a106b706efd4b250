"""CUDA graphs of training steps: a GPU replays a step as one graph instead of launching some hundred small kernels.

On small models a training step is bound by the time to launch its kernels. The first steps run as they are; then one step is recorded and
replayed with new row indices. A step must change its state in place, and take all that varies from its index tensor. It may leave no tensor
that it made itself to later steps, but of the steps that run before one is recorded: graphs of several sizes share their memory.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from tinymem.mitigation.methods.pieces import LARGE, size_of
from tinymem.models.adapters import heads_apart
from tinymem.models.gpt2 import GPT

WARM_UP_STEPS = 1
"""Steps that run before one is recorded: the first loads kernels, and makes what steps keep."""
LEAST_STEPS = 16
"""Recording costs about as much time as some ten steps launched one by one."""
MOST_SHAPES = 4
"""Of indices that are recorded: those of whole batches, of several together, and of an epoch's last batch."""

_UNUSED: dict[torch.device, list[torch.cuda.Stream]] = {}
"""Streams of steps that are gone."""


class Replayed:
    """A step `function(index)`: replayed on a GPU for our GPT, called as it is otherwise.

    Args:
        function: takes the rows of a batch [B], or of several steps' batches [K, B].
        steps: expected number of steps; few are not worth recording.
        any_family: whether steps of other small models are replayed too.
        loaded: whether all that a step of the first batch's size launches is loaded, and all that it keeps is there, so that it can be
            recorded before it has run.
    """

    def __init__(
        self, function: Callable[[Tensor], None], model: nn.Module, *, steps: int, any_family: bool = False, loaded: bool = False
    ) -> None:
        self.function, self.loaded = function, loaded
        self.device = next(model.parameters()).device
        self.usable = steps >= LEAST_STEPS and _on_gpu(self.device) and (isinstance(model, GPT) or (any_family and _is_small(model)))
        self.rows: int | None = None
        self.recorded: dict[torch.Size, _Recorded] = {}
        self.stream = self._own_stream() if self.usable else None

    def _own_stream(self) -> torch.cuda.Stream:
        """A stream, and so a workspace of the matrix products, of its own, since graphs that share one cannot run side by side.

        Some later steps take it over from these: each new stream would leave a workspace of 65 MiB behind.
        """
        unused = _UNUSED.setdefault(self.device, [])
        stream = unused.pop() if unused else torch.cuda.Stream(self.device)
        weakref.finalize(self, unused.append, stream)
        return stream

    def __call__(self, index: Tensor) -> None:
        """One step, or several, on the rows of `index`, which may be on the CPU."""
        self.rows = self.rows or index.shape[-1]
        if not self.usable or (index.shape not in self.recorded and len(self.recorded) == MOST_SHAPES):
            self.function(index.to(self.device))
            return
        if index.shape not in self.recorded:
            self.recorded[index.shape] = _Recorded(torch.empty_like(index, device=self.device))
        found = self.recorded[index.shape]
        found.index.copy_(index)
        if found.steps < WARM_UP_STEPS and not (self.loaded and index.shape[-1] == self.rows):
            found.steps += len(index) if index.dim() > 1 else 1
            self._warm_up(found.index)
            return
        if found.graph is None and not self._record(found):
            self.usable = False
            self.function(index.to(self.device))
            return
        assert found.graph is not None
        found.graph.replay()

    def _record(self, found: _Recorded) -> bool:
        """Record a step, which does not run it. False: the step does something that a graph cannot hold."""
        graph = torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for other in self.recorded.values() if other.graph is not None), None)  # they run one by one
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                self.function(found.index)
        except RuntimeError as error:
            warnings.warn(f"steps run one by one, since recording failed: {error}", stacklevel=3)
            return False
        found.graph = graph
        return True

    def _warm_up(self, index: Tensor) -> None:
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.function(index)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)


def _is_small(model: nn.Module) -> bool:
    """Whether steps of a model of another family are bound by the time to launch their kernels, and can be recorded.

    One on several devices cannot, nor one in half precision, whose losses read on the host from where on there are logits.
    """
    return size_of(model) < LARGE and not hasattr(model, "hf_device_map") and not heads_apart(model)


@dataclass
class _Recorded:
    """The place that a graph takes its rows from, how many steps have been run on it, and the graph."""

    index: Tensor
    steps: int = 0
    graph: torch.cuda.CUDAGraph | None = None


def together(batches: Iterable[Tensor], count: int, device: torch.device) -> Iterator[Tensor]:
    """The rows [K, B] of `count` batches of one size in a row, and of what is left of these one by one; all go to the device at first."""
    for _, same in groupby(batches, key=len):
        index_NB = torch.stack([*same]).to(device)
        whole = len(index_NB) // count * count
        yield from (part for part in (*index_NB[:whole].split(count), *index_NB[whole:].split(1)) if len(part))


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
