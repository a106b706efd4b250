"""Whether a learned mask's steps go through the kernels of training's step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.substitute import Substituted
from tinymem.models.fingerprint import hooks_of
from tinymem.models.gpt2 import GPT
from tinymem.training.precision import precision_context
from tinymem.training.whole_step.check import right
from tinymem.training.whole_step.choice import Training, why_not

if TYPE_CHECKING:
    from tinymem.mitigation.methods.weight._learned_mask import LearnedMask
    from tinymem.mitigation.methods.weight._mask_steps import MaskSteps

LEAST_STEPS = 200
"""Of a mask; a training asks for more, since it loads and compares the kernels for one run, a sweep once for all its masks."""


def mask_steps(mask: LearnedMask, rows: Rows, coefficient_B: Tensor, steps: int) -> MaskSteps | None:
    """The kernels' steps of a mask on rows; None where the kernels do not apply, do not run, or would not pay.

    Args:
        mask: before its first step.
        rows: that the mask is trained on: their first ones are a batch on which the kernels are compared with autograd.
        coefficient_B: of the rows of that batch.
        steps: how many there will be.
    """
    model = mask.model
    if not isinstance(model, GPT) or mask.dtype != torch.bfloat16 or rows.length is not None or not _one_size(mask) or steps < LEAST_STEPS:
        return None
    weight = next(model.parameters())
    facts = Training(model.config, weight.device, "bf16", rows.ids.shape[1], len(coefficient_B))
    if weight.dtype != torch.float32 or why_not(facts):
        return None
    from tinymem.mitigation.methods.weight._mask_steps import MaskSteps

    made, first_BT = MaskSteps(mask, model), rows.ids[: len(coefficient_B)]
    if not trusted(made, mask, first_BT, coefficient_B):
        return None
    made.ready(*first_BT.shape)
    return made


def _one_size(mask: LearnedMask) -> bool:
    """Whether all groups are of one size, and some but not all of their weights are dropped."""
    return len(mask.parts) == 1 and 0 < mask.parts[0].count < mask.parts[0].size


def trusted(made: MaskSteps, mask: LearnedMask, ids_BT: Tensor, coefficient_B: Tensor) -> bool:
    """Whether the kernels agree with autograd, which a process asks once for each shape: of model, batch and groups.

    A sweep trains many masks on models of one shape, and the comparison takes as long as some 600 steps. A model that computes otherwise
    than its shape says, by hooks or as a class of its own, is compared each time.
    """
    if hooks_of(mask.model) or type(mask.model) is not GPT:
        return agree(made, mask, ids_BT, coefficient_B)
    shape = mask.model.config, ids_BT.device, *ids_BT.shape, mask.parts[0].size, mask.config.drop
    if shape not in _AGREED and agree(made, mask, ids_BT, coefficient_B):
        _AGREED.add(shape)
    return shape in _AGREED


_AGREED: set[tuple[object, ...]] = set()
"""Shapes for which this process has seen the kernels agree with autograd."""


def agree(made: MaskSteps, mask: LearnedMask, ids_BT: Tensor, coefficient_B: Tensor) -> bool:
    """Whether the kernels run, and give autograd's gradient of a batch under the mask.

    Where every coefficient is 0, as of forget rows with a loss_weight of 1, ones are taken: a gradient of 0 has no relative error.
    """
    told_B = coefficient_B if coefficient_B.any() else torch.ones_like(coefficient_B)

    def kernels() -> Tensor:
        places = made.gradients(ids_BT, told_B).split([p.numel() for p in mask.model.parameters()])
        found = dict(zip(dict(mask.model.named_parameters()), places, strict=True))
        return torch.cat([found[name] for name in mask.shapes])

    def autograd(context: Callable[[], AbstractContextManager[object]]) -> Tensor:
        leaves = {name: matrix.clone().requires_grad_() for name, matrix in mask.matrices(torch.float32).items()}
        with context():
            loss = (row_losses(Substituted(mask.model, leaves), Rows.of(ids_BT)) * told_B).sum()
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, [*leaves.values()])])

    short = partial(autograd, precision_context("bf16", str(ids_BT.device)))
    return right(partial(made.compile, ids_BT, told_B), kernels, partial(autograd, nullcontext), short, "a mask's training")
