"""CUDA graphs of training steps: a GPU replays a step as one graph instead of launching some hundred small kernels.

On small models a training step is bound by the time to launch its kernels. The first steps run as they are; then one step is recorded and
replayed with new row indices. A step must change its state in place, and take all that varies from its index tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tinymem.mitigation.methods.pieces import LARGE, size_of
from tinymem.models.gpt2 import GPT

WARM_UP_STEPS = 3
LEAST_STEPS = 16
"""Recording costs about as much time as some ten steps launched one by one."""


class Replayed:
    """A step `function(index)`: replayed on a GPU for our GPT, called as it is otherwise (and where the batch is not of the first size).

    Args:
        steps: expected number of steps; few are not worth recording.
        any_family: whether steps of other small models are replayed too.
    """

    def __init__(self, function: Callable[[Tensor], None], model: nn.Module, *, steps: int, any_family: bool = False) -> None:
        self.function, self.calls = function, 0
        self.device = next(model.parameters()).device
        self.graph: torch.cuda.CUDAGraph | None = None
        self.index: Tensor | None = None
        self.usable = steps >= LEAST_STEPS and _on_gpu(self.device) and (isinstance(model, GPT) or (any_family and _is_small(model)))
        # A stream, and so a workspace of the matrix products, of its own: graphs that share one cannot run side by side.
        self.stream = torch.cuda.Stream(self.device) if self.usable else None

    def __call__(self, index: Tensor) -> None:
        """One step on the rows of `index`, which may be on the CPU."""
        if self.usable and self.index is None:
            self.index = torch.empty_like(index, device=self.device)
        if self.index is None or len(index) != len(self.index):
            self.function(index.to(self.device))
            return
        self.index.copy_(index)
        if self.calls < WARM_UP_STEPS:
            self._warm_up(self.index)
            return
        if self.graph is None and not self._record(self.index):
            self.usable, self.index = False, None
            self.function(index.to(self.device))
            return
        assert self.graph is not None
        self.graph.replay()

    def _record(self, index: Tensor) -> bool:
        """Record a step, which does not run it. False: the step does something that a graph cannot hold."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.function(index)
        except RuntimeError as error:
            warnings.warn(f"steps run one by one, since recording failed: {error}", stacklevel=3)
            return False
        self.graph = graph
        return True

    def _warm_up(self, index: Tensor) -> None:
        self.calls += 1
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.function(index)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)


def _is_small(model: nn.Module) -> bool:
    """Whether a model of another family is on one device, and its steps are bound by the time to launch their kernels."""
    return size_of(model) < LARGE and not hasattr(model, "hf_device_map")


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
