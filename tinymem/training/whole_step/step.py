"""The training step of whole-block kernels, in a CUDA graph as any other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from tinymem.data.rows import to_ids
from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.attention import library_attention_in
from tinymem.training.kernels.flat_adamw import FlatAdamW
from tinymem.training.parallel import any_process, average
from tinymem.training.step import GraphedStep, own_rows
from tinymem.training.whole_step.check import right
from tinymem.training.whole_step.gradients import KernelGradients
from tinymem.training.whole_step.passes import Shares
from tinymem.training.whole_step.tiles import Tiles


class KernelStep(GraphedStep):
    """A step without autograd: gradients by `KernelGradients`, straight into the flat optimizer, which must be a `FlatAdamW`.

    Regularizers may weigh tokens, switch neurons off, and add a penalty on weights (`choice.RIDING`). Before the first step the kernels'
    gradient of its batch is compared with autograd's. Where they differ, or the kernels do not run (another triton, a GPU with less memory
    on the chip), it is a `GraphedStep`, and says so.
    """

    dtype = torch.bfloat16
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        gpt = self.model.gpt
        assert isinstance(gpt, GPT) and isinstance(self.optimizer, FlatAdamW)
        self._flat = self.optimizer
        self._gradients = KernelGradients(gpt, self._flat.flat, self.dtype, self.tiles)
        self.by_kernels: bool | None = None

    @property
    def way(self) -> str:
        return super().way if self.by_kernels is False else "kernels"

    def _tried(self, batch_B: Tensor) -> bool:
        """Whether the kernels run, and give the gradient of their first batch; nothing uses it."""
        if self.by_kernels is None:
            own_B, _ = own_rows(batch_B, *self.process)
            ids_BT = to_ids(self.rows_NT[own_B])
            self.regularizers.before(own_B)
            exact, short = (partial(self._by_autograd, ids_BT, context) for context in (nullcontext, self.precision))
            compiling, kernels = partial(self._compiling, ids_BT), partial(self._by_kernels, ids_BT)
            wrong = not right(compiling, kernels, exact, short, "training")
            self.by_kernels = not any_process(wrong, ids_BT.device)
        return self.by_kernels

    def _compiling(self, ids_BT: Tensor) -> Callable[[], None]:
        return self._gradients.compile(ids_BT, self._compared_shares, self._gates(), self._flat.launch_update)

    def _by_kernels(self, ids_BT: Tensor) -> Tensor:
        self._gradients(ids_BT, self._compared_shares, self._gates())
        return self._gradients.flat

    @property
    def _compared_shares(self) -> Shares:
        """Those of the gradient that is compared: where shares follow from losses, they are as high as these."""
        return as_high if self.regularizers.weighs_by_loss else None

    def _by_autograd(self, ids_BT: Tensor, context: Callable[[], AbstractContextManager[object]]) -> Tensor:
        with context(), library_attention_in(self.model):
            if self.regularizers.weighs_by_loss:  # of losses l with shares as high, the sum's gradient is that of l * l / 2
                loss = self.model(ids_BT, each=True).float().square().mean() / 2
            else:
                loss = self.loss(self.model, ids_BT)
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, self._flat.param_groups[0]["params"])])

    def _model_for(self, batch_B: Tensor) -> nn.Module:
        return self.model if self._tried(batch_B) else super()._model_for(batch_B)

    def _step(self, model: nn.Module, batch_B: Tensor) -> None:
        if not self._tried(batch_B):
            super()._step(model, batch_B)
            return
        own_B, counts_B = own_rows(batch_B, *self.process)
        ids_BT = to_ids(self.rows_NT[own_B])
        self.regularizers.before(own_B)
        loss = self._gradients(ids_BT, self._shares(ids_BT, counts_B), self._gates())
        self._add_penalty()
        if self.process[1] > 1:
            average(self._gradients.flat)
        self._flat.update(self._gradients.flat)
        self.regularizers.after()
        self.loss_sum += loss

    def _gates(self) -> Tensor | None:
        gates_LBF = self.regularizers.neuron_gates()
        return gates_LBF if gates_LBF is None else gates_LBF.to(torch.int8)

    def _shares(self, ids_BT: Tensor, counts_B: Tensor | None) -> Shares:
        """Weight [B, T] of each token's prediction of the next in the loss, or how it follows from the losses [B, P]."""

        def shares(losses_BP: Tensor) -> Tensor:
            losses_BP = losses_BP.detach().clone().requires_grad_()
            (shares_BP,) = torch.autograd.grad(self.regularizers.mean_loss(ids_BT, losses_BP, counts_B), losses_BP)
            return nn.functional.pad(shares_BP, (0, 1))

        if self.regularizers.weighs_by_loss:
            return shares
        plain = counts_B is None and not self.regularizers.weighs_tokens
        return None if plain else shares(torch.ones(ids_BT[:, 1:].shape, device=ids_BT.device))

    def _add_penalty(self) -> None:
        penalty = self.regularizers.penalty() if len(self.regularizers) else None
        if penalty is not None:
            self._flat.link_gradients(self._gradients.flat)
            penalty.backward()
            self._flat.zero_grad(set_to_none=True)


def as_high(losses_BP: Tensor) -> Tensor:
    """Shares [B, T] of the tokens, as high as their losses [B, P] by the number of these."""
    return nn.functional.pad(losses_BP / losses_BP.numel(), (0, 1))
