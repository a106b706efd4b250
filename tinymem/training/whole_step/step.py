"""The training step of whole-block kernels, in a CUDA graph as any other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tinymem.data.rows import to_ids
from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.flat_adamw import FlatAdamW
from tinymem.training.step import GraphedStep
from tinymem.training.whole_step.gradients import KernelGradients
from tinymem.training.whole_step.tiles import Tiles

WORSE, FLOOR = 2, 0.02
"""How many times as far from fp32's gradient as PyTorch's in the same precision the kernels' may be, and what is always allowed besides."""


class KernelStep(GraphedStep):
    """A step without autograd: gradients by `KernelGradients`, straight into the flat optimizer, which must be a `FlatAdamW`.

    Regularizers may weigh tokens by their ids alone, and add a penalty on weights (`choice.RIDING`). Before the first step the kernels'
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

    def _tried(self, batch_B: Tensor) -> bool:
        if self.by_kernels is None:
            self.by_kernels = self._try(batch_B)
        return self.by_kernels

    def _try(self, batch_B: Tensor) -> bool:
        """Whether the kernels run, and give the gradient of the batch; nothing uses it."""
        try:
            far, allowed = self._errors(to_ids(self.rows_NT[batch_B]))
            if not far <= allowed:  # or is no number
                raise ArithmeticError(f"their gradient is {far:.1%} from that in fp32, where {allowed:.1%} are allowed")
        except Exception as error:  # triton's own errors have no common class
            reason = str(error).partition("\n")[0] or type(error).__name__
            warnings.warn(f"training goes through autograd, since the kernels of training.kernels do not run here: {reason}", stacklevel=2)
            return False
        return True

    def _errors(self, ids_BT: Tensor) -> tuple[float, float]:
        """How far the kernels' gradient is from fp32's, as a share of its length, and how far it may be."""
        self._gradients(ids_BT)
        exact, short = (self._by_autograd(ids_BT, context) for context in (nullcontext, self.precision))
        far, near = ((gradient - exact).norm() / exact.norm() for gradient in (self._gradients.flat, short))
        return float(far), WORSE * float(near) + FLOOR

    def _by_autograd(self, ids_BT: Tensor, context: Callable[[], AbstractContextManager[object]]) -> Tensor:
        with context():
            loss = self.loss(self.model, ids_BT)
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, self._flat.param_groups[0]["params"])])

    def _model_for(self, batch_B: Tensor) -> nn.Module:
        return self.model if self._tried(batch_B) else super()._model_for(batch_B)

    def _step(self, model: nn.Module, batch_B: Tensor) -> None:
        if not self._tried(batch_B):
            super()._step(model, batch_B)
            return
        ids_BT = to_ids(self.rows_NT[batch_B])
        self.regularizers.before(batch_B)
        loss = self._gradients(ids_BT, self._shares(ids_BT))
        self._add_penalty()
        self._flat.update(self._gradients.flat)
        self.regularizers.after()
        self.loss_sum += loss

    def _shares(self, ids_BT: Tensor) -> Tensor | None:
        """Weight [B, T] of each token's prediction of the next in the loss; None: those of the mean."""
        if not self.regularizers.weighs_tokens:
            return None
        losses_BP = torch.ones(ids_BT[:, 1:].shape, device=ids_BT.device, requires_grad=True)
        (shares_BP,) = torch.autograd.grad(self.regularizers.mean_loss(ids_BT, losses_BP), losses_BP)
        return nn.functional.pad(shares_BP, (0, 1))

    def _add_penalty(self) -> None:
        penalty = self.regularizers.penalty() if len(self.regularizers) else None
        if penalty is not None:
            self._flat.link_gradients(self._gradients.flat)
            penalty.backward()
            self._flat.zero_grad(set_to_none=True)
