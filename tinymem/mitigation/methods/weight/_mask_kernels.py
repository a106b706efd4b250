"""The gradients that a learned mask needs, by the kernels of training's step: of the feed-forward matrices only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.substitute import Substituted
from tinymem.models.adapters import mlp_parameters
from tinymem.models.gpt2 import GPT
from tinymem.training.precision import precision_context
from tinymem.training.whole_step.check import right
from tinymem.training.whole_step.choice import Training, why_not

if TYPE_CHECKING:
    from tinymem.training.whole_step.gradients import KernelGradients


class MaskGradients:
    """Gradients of a GPT's weights where some are given anew at each call; the model is left as it is.

    Args:
        gradients: of weights [P] that are all the model's one after another, and that calls write to.
        model: whose weights they are.
        flat: the weights.
    """

    def __init__(self, gradients: KernelGradients, model: GPT, flat: Tensor) -> None:
        self._gradients = gradients
        self._weights, self._found = (_by_name(model, values) for values in (flat, gradients.flat))

    def compile(self, ids_BT: Tensor) -> None:
        """Compile the kernels for such batches."""
        self._gradients.compile(ids_BT)

    def __call__(self, ids_BT: Tensor, coefficient_B: Tensor, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Gradients of sum(coefficient * mean loss of a row) with respect to these weights of feed-forward matrices, by name."""
        torch._foreach_copy_([self._weights[name] for name in weights], [*weights.values()])
        predicted = ids_BT.shape[1] - 1
        shares_BP = (coefficient_B / predicted)[:, None].expand(-1, predicted)
        self._gradients(ids_BT, nn.functional.pad(shares_BP, (0, 1)))
        return {name: self._found[name] for name in weights}


def mask_gradients(model: nn.Module, dtype: torch.dtype, rows: Rows, coefficient_B: Tensor, steps: int) -> MaskGradients | None:
    """Those of a model and rows, in products of `dtype`; None where the kernels do not apply, do not run, or would not pay.

    Args:
        model: the model; it is left as it is.
        dtype: of the mask's passes.
        rows: that the mask is trained on: their first ones are a batch on which the kernels are compared with autograd.
        coefficient_B: of the rows of that batch.
        steps: how many there will be.
    """
    if not isinstance(model, GPT) or dtype != torch.bfloat16 or rows.length is not None:
        return None
    weights = [p.detach() for p in model.parameters()]
    facts = Training(model.config, weights[0].device, "bf16", rows.ids.shape[1], len(coefficient_B), steps=steps)
    if weights[0].dtype != torch.float32 or why_not(facts):
        return None
    from tinymem.training.whole_step.gradients import KernelGradients

    flat = torch.cat([weight.flatten() for weight in weights])
    made = MaskGradients(KernelGradients(model, flat, feed_forward=True), model, flat)
    return made if agree(made, model, rows.ids[: len(coefficient_B)], coefficient_B) else None


def agree(made: MaskGradients, model: GPT, ids_BT: Tensor, coefficient_B: Tensor) -> bool:
    """Whether the kernels run, and give autograd's gradient of a batch at the model's own weights.

    Where every coefficient is 0, as of forget rows with a loss_weight of 1, ones are taken: a gradient of 0 has no relative error.
    """
    told_B = coefficient_B if coefficient_B.any() else torch.ones_like(coefficient_B)
    matrices = {name: p.detach() for name, p in mlp_parameters(model, matrices_only=True).items()}

    def kernels() -> Tensor:
        made.compile(ids_BT)
        found = made(ids_BT, told_B, matrices)
        return torch.cat([found[name].flatten() for name in matrices])

    def autograd(context: Callable[[], AbstractContextManager[object]]) -> Tensor:
        leaves = {name: matrix.clone().requires_grad_() for name, matrix in matrices.items()}
        with context():
            loss = (row_losses(Substituted(model, leaves), Rows.of(ids_BT)) * told_B).sum()
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, [*leaves.values()])])

    short = partial(autograd, precision_context("bf16", str(ids_BT.device)))
    return right(kernels, partial(autograd, nullcontext), short, "a mask's training")


def _by_name(model: GPT, flat: Tensor) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    parts = flat.split([p.numel() for p in named.values()])
    return {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
