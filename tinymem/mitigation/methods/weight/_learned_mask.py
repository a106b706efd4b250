"""A mask over feed-forward matrices that is learned with a straight-through gradient (Ramanujan et al. 2020).

Each weight has a score s. Forward: exactly K weights of each group, those with the highest |s|, are dropped. Backward: the hard choice
is treated as if it were |s| itself, so that the gradient of |s| is minus that of the kept share of the weight: scores grow where dropping
lowers the objective. `drop="lowest"` is the published code's reading: |s| says how much to keep a weight, and the gradient's sign follows.

All scores are one flat parameter, group after group, each matrix in the published layout (`in_out`): groups of one size are ranked
together, and a step of SGD is four operations.

Shape suffixes: P weights of all matrices, G groups, N entries of a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation.ablation import AblationConfig, group_counts
from tinymem.mitigation.methods.substitute import Substituted, constants
from tinymem.mitigation.methods.weight._draws import uniform
from tinymem.mitigation.methods.weight._selection import extreme, without_extreme
from tinymem.models.adapters import in_out, mlp_parameters

Drop = Literal["highest", "lowest"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class LearnedMaskConfig(AblationConfig):
    """Options that Subnet and BalancedSubnet share.

    Attributes:
        epochs: passes over the rows.
        drop: whether the weights with the highest or the lowest |score| are dropped.
        learning_rate, momentum, weight_decay: of the SGD that trains the scores (published values).
        precision: of the passes that compute the scores' gradients (scores are fp32, and the model's own weights are edited): `bf16`,
            `fp32` or `tf32` (fp32 with short products, GPUs only). `auto`: AUTO_ON_GPU on a GPU, fp32 on a CPU. Models in half precision
            stay so.
    """

    ratio: float = 0.1
    scope: Literal["tensor", "layer", "model"] = "tensor"
    epochs: int = 1
    drop: Drop = "highest"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    precision: Precision = "auto"


AUTO_ON_GPU: Precision = "bf16"


class LearnedMask:
    """Scores of the feed-forward matrices of a model, and the weights that they leave.

    Args:
        model: the model; it is left as it is.
        config: ratio, groups and training of the scores.
        scores: where they start: fp32, by the names and of the shapes of the matrices. See `initial_scores`.

    Raises:
        UserError: scores of other tensors than the matrices; otherwise as `group_counts`.
    """

    def __init__(self, model: nn.Module, config: LearnedMaskConfig, scores: Mapping[str, Tensor]) -> None:
        self.model, self.config = model, config
        weights = {name: in_out(model, p.detach()) for name, p in mlp_parameters(model, matrices_only=True).items()}
        started = _checked(scores, model, weights)
        self.shapes = {name: w.shape for name, w in weights.items()}
        groups = group_counts(model, {name: w.numel() for name, w in weights.items()}, config)
        sizes = [(sum(weights[n].numel() for n in names), count) for names, count in groups]
        self.runs = [(len(list(same)), *kind) for kind, same in groupby(sizes)]  # equal groups in a row: how many, size, count
        self.weights_P = torch.cat([weights[n].flatten() for names, _ in groups for n in names])
        self.scores_P = torch.cat([started[n].flatten() for names, _ in groups for n in names]).requires_grad_()
        self.velocity_P = torch.zeros_like(self.scores_P)
        self.dtype, self.passes = _precision(config.precision, self.weights_P)
        self.constants = constants(model, self.shapes, self.dtype)

    def dropped(self) -> dict[str, Tensor]:
        """Masks by name, shaped as the matrices: True where a weight is dropped, exactly the configured number of them."""
        lowest, parts = self.config.drop == "lowest", []
        for (_, _, count), scores_GN in self._by_run(self.scores_P):
            parts.append(extreme(scores_GN, count, lowest=lowest).flatten())
        return self.split(torch.cat(parts))

    def masked(self) -> Substituted:
        """The model under the current mask; gradients of its outputs reach the scores."""
        weights_P: Tensor = _Masked.apply(self.scores_P, self)  # type: ignore[no-untyped-call]
        return Substituted(self.model, {**self.constants, **self.split(weights_P)})

    def masked_weights(self) -> Tensor:
        """The weights [P] that the mask leaves, 0 where one is dropped."""
        lowest, parts = self.config.drop == "lowest", []
        for ((_, _, count), scores_GN), (_, weights_GN) in zip(self._by_run(self.scores_P), self._by_run(self.weights_P), strict=True):
            parts.append(without_extreme(weights_GN, scores_GN, count, lowest=lowest, dtype=self.dtype).flatten())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def step(self, objective: Tensor) -> None:
        """Lower the objective by one step of SGD on the scores; the model's own weights stay as they are."""
        (gradient_P,) = torch.autograd.grad(objective, self.scores_P)
        with torch.no_grad():
            gradient_P = gradient_P.add(self.scores_P, alpha=self.config.weight_decay)
            self.velocity_P.mul_(self.config.momentum).add_(gradient_P)
            self.scores_P.add_(self.velocity_P, alpha=-self.config.learning_rate)

    def edited(self) -> nn.Module:
        """A copy of the model without the dropped weights.

        Raises:
            UserError: training the scores ended in NaN or infinity.
        """
        if not torch.isfinite(self.scores_P).all():
            raise UserError("expected finite scores, got NaN or infinity: the mask's training diverged; try a lower learning_rate")
        edited = deepcopy(self.model)
        parameters = dict(edited.named_parameters())
        with torch.no_grad():
            for name, drop in self.dropped().items():
                parameters[name].masked_fill_(drop, 0)
        return edited

    def split(self, flat_P: Tensor) -> dict[str, Tensor]:
        """The parts of a flat tensor [P], one per matrix and of its shape in the model: views."""
        parts = flat_P.split([shape.numel() for shape in self.shapes.values()])
        return {name: in_out(self.model, part.view(shape)) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _by_run(self, flat_P: Tensor) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
        parts = flat_P.detach().split([groups * size for groups, size, _ in self.runs])
        for run, part in zip(self.runs, parts, strict=True):
            yield run, part.view(run[0], run[1])


class _Masked(torch.autograd.Function):
    """Scores -> weights that the mask leaves. With w (1 - d) for d the choice, treated as +-|s|: d/ds = -+ gradient * w * sgn(s)."""

    @staticmethod
    def forward(ctx: Any, scores_P: Tensor, mask: LearnedMask) -> Tensor:
        ctx.mask = mask
        ctx.save_for_backward(scores_P)
        return mask.masked_weights()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scores_P,), mask = ctx.saved_tensors, ctx.mask
        slope_P = gradients[0].float() * mask.weights_P.float() * scores_P.sgn()
        return (slope_P if mask.config.drop == "lowest" else -slope_P), None


def _precision(chosen: Precision, weights: Tensor) -> tuple[torch.dtype, AbstractContextManager[None]]:
    """Type of the weights in the passes, and the context to run them in."""
    if chosen == "auto":
        chosen = AUTO_ON_GPU if weights.is_cuda else "fp32"
    if weights.dtype != torch.float32:
        return weights.dtype, nullcontext()
    if chosen == "bf16":
        return torch.bfloat16, nullcontext()
    return torch.float32, _ShortProducts() if chosen == "tf32" else nullcontext()


class _ShortProducts(AbstractContextManager[None]):
    """Inside the context fp32 products on a GPU use its tensor cores (TF32: ten bits of mantissa)."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.fp32_precision = self.before


def initial_scores(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Kaiming-uniform scores with a = sqrt(5) by the names of the matrices, as torch initializes linear layers: U(-1, 1) / sqrt(inputs)."""
    drawn = uniform(model, mlp_parameters(model, matrices_only=True), seed)
    return {name: (u * 2 - 1) * (1 / math.sqrt(in_out(model, u).shape[0])) for name, u in drawn.items()}


def _checked(scores: Mapping[str, Tensor], model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores of all matrices as [in, out], on the matrices' devices."""
    published = {name: in_out(model, s.detach()).to(weights[name].device, torch.float32) for name, s in scores.items() if name in weights}
    wrong = [name for name in {**weights, **scores} if name not in published or published[name].shape != weights[name].shape]
    if wrong:
        raise UserError(f"expected scores of the model's feed-forward matrices, each of its shape; got others at '{wrong[0]}'")
    return published
