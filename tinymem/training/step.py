"""One training step: eager anywhere, or captured whole in a CUDA graph.

A small model's step is hundreds of short kernels; launched one by one they take several times as long as they run. So on a GPU the rows
stay on the device, and forward pass, backward pass and optimizer are captured once and replayed. A batch of another size (the last of an
epoch) gets a separate graph. Nothing is read back to the host: losses add up on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinymem.data.rows import to_ids
from tinymem.training.loss import LossModel, keep_head_whole
from tinymem.training.parallel import average_gradients
from tinymem.training.regularizer import Regularizers

WARM_UP = 3
Loss = Callable[[nn.Module, Tensor], Tensor]


@dataclass
class Step:
    """Eager step of a model on rows that are on its device.

    Attributes:
        model: a `LossModel`, wrapped or compiled or not.
        optimizer: of its parameters.
        rows_NT: the distinct training rows, in any integer type.
        loss: mean loss of a batch; regularizers that weigh tokens go round it.
        precision: context of the forward pass.
        process: index of this process and number of processes that share each batch; their gradients are averaged.
        loss_sum: sum of the losses of all steps since it was zeroed.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rows_NT: Tensor
    loss: Loss
    regularizers: Regularizers = field(default_factory=Regularizers)
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    process: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        self.loss_sum = torch.zeros((), device=self.rows_NT.device)

    @property
    def way(self) -> str:
        """What computes it: "autograd", or "kernels" of whole blocks."""
        return "autograd"

    def __call__(self, batch_B: Tensor) -> None:
        """Train on the rows [B] of these indices."""
        self._step(self.model, batch_B)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _step(self, model: nn.Module, batch_B: Tensor) -> None:
        loss = self._loss(model, batch_B)
        penalty = self.regularizers.penalty() if len(self.regularizers) else None
        self.optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        if self.process[1] > 1:
            average_gradients(self.model.parameters())
        self.optimizer.step()
        self.regularizers.after()
        self.loss_sum += loss.detach()

    def _loss(self, model: nn.Module, batch_B: Tensor) -> Tensor:
        own_B, counts_B = own_rows(batch_B, *self.process)
        ids_BT = to_ids(self.rows_NT[own_B])
        self.regularizers.before(own_B)
        with self.precision():
            if counts_B is None and not self.regularizers.weighs_tokens:
                return self.loss(model, ids_BT)
            losses_BP: Tensor = model(ids_BT, each=True)
        return self.regularizers.mean_loss(ids_BT, losses_BP.float(), counts_B)


def own_rows(batch_B: Tensor, process: int, processes: int) -> tuple[Tensor, Tensor | None]:
    """A process's rows of a batch, equally many for each, and a mask of those that count: the last ones may be repeats (None: all)."""
    each = -(-len(batch_B) // processes)
    if each * processes == len(batch_B):
        return batch_B[process * each : (process + 1) * each], None
    at = torch.arange(process * each, (process + 1) * each, device=batch_B.device)
    return batch_B[at % len(batch_B)], at < len(batch_B)


class GraphedStep(Step):
    """A step replayed from CUDA graphs; the optimizer must be capturable, with its rate in a tensor.

    With `compiling` set, batches of `batch_size` go through torch.compile, whose import alone takes seconds.
    """

    compiling: bool = False
    batch_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, batch_B: Tensor) -> None:
        if len(batch_B) not in self._graphs:
            self._graphs[len(batch_B)] = self._capture(batch_B)
        graph, input_B = self._graphs[len(batch_B)]
        input_B.copy_(batch_B)
        graph.replay()

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"].fill_(rate)

    def _capture(self, batch_B: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Warm up on a side stream, restore all tensors, and record."""
        input_B = batch_B.clone()
        model = self._model_for(batch_B)
        kept = self._state(copy=True)
        device = self.rows_NT.device
        stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # its context makes the device the current one
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._step(model, input_B)
        current.wait_stream(stream)
        self._put_back(kept)
        self.optimizer.zero_grad(set_to_none=True)  # gradients are then made in the graph's memory: written, not added to
        graph = torch.cuda.CUDAGraph()
        # On its own stream, not the one that all captures share: matrix products keep a workspace per stream, flags in it included, and
        # two graphs with one workspace hang when they run side by side. And NCCL's watchdog thread makes calls of its own meanwhile,
        # which must not spoil the capture.
        mode = "thread_local" if self.process[1] > 1 else "global"
        with torch.cuda.graph(graph, stream=stream, capture_error_mode=mode):
            self._step(model, input_B)
        return graph, input_B

    def _model_for(self, batch_B: Tensor) -> nn.Module:
        return compiled(self.model) if self.compiling and len(batch_B) == self.batch_size else self.model

    def _state(self, *, copy: bool) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()} | {"loss_sum": self.loss_sum}
        tensors |= {f"regularizers.{n}": t for n, t in self.regularizers.state_dict().items()}
        for i, values in enumerate(self.optimizer.state.values()):
            tensors |= {f"optimizer.{i}.{n}": t for n, t in values.items()}
        return {name: t.detach().clone() if copy else t.detach() for name, t in tensors.items()}

    def _put_back(self, kept: dict[str, Tensor]) -> None:
        for name, tensor in self._state(copy=False).items():
            tensor.copy_(kept[name]) if name in kept else tensor.zero_()  # the optimizer makes its state in its first step


def compiled(model: nn.Module) -> nn.Module:
    """The model through torch.compile, for one shape; small operations that do not wait for one another share a kernel."""
    if isinstance(model, LossModel):
        keep_head_whole(model)
    made: nn.Module = torch.compile(model, dynamic=False, options={"combo_kernels": True})  # type: ignore[assignment]
    return made
