"""A mask over feed-forward matrices that is learned with a straight-through gradient (Ramanujan et al. 2020).

Each weight has a score s. Forward: exactly K weights of each group, those with the highest |s|, are dropped. Backward: the hard choice
is treated as if it were |s| itself, so that the gradient of |s| is minus that of the kept share of the weight: scores grow where dropping
lowers the objective. `drop="lowest"` is the published code's reading: |s| says how much to keep a weight, and the gradient's sign follows.

All scores are one flat tensor, group after group, each matrix in the published layout (`in_out`). What a step computes on the way it
computes for a part of the groups at a time: all of them for a small model, whose groups of one size are ranked together; for a large one
the groups that `PART` entries hold, since gradients and other temporaries of all its matrices would not fit beside scores and velocities.

Shape suffixes: P weights of all matrices, G groups of a part, N entries of a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, groupby
from typing import Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.ablation import AblationConfig, Scores, group_counts
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.pieces import LARGE, Pieces, add_gradients, beside_scores, size_of
from tinymem.mitigation.methods.substitute import Substituted, constants
from tinymem.mitigation.methods.weight._draws import uniform
from tinymem.mitigation.methods.weight._selection import use_kernel, without_extreme
from tinymem.models.adapters import in_out, mlp_parameters
from tinymem.models.copied import copied
from tinymem.training.kernels.attention import row_attention_in
from tinymem.training.rounded_adamw import refuse_fp16

Drop = Literal["highest", "lowest"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
PART = 2**26


@dataclass(frozen=True, kw_only=True)
class LearnedMaskConfig(AblationConfig):
    """Options that Subnet and BalancedSubnet share.

    Attributes:
        epochs: passes over the rows.
        drop: whether the weights with the highest or the lowest |score| are dropped.
        learning_rate, momentum, weight_decay: of the SGD that trains the scores (published values).
        precision: of the passes that compute the scores' gradients (scores are fp32, and the model's own weights are edited): `bf16`,
            `fp32` or `tf32` (fp32 with short products, GPUs only). `auto`: AUTO_ON_GPU on a GPU, fp32 on a CPU. Models in bf16
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

    def computed_in(self, device_type: str | None, *, ours: bool) -> str | None:
        """What `auto` is on a GPU."""
        return AUTO_ON_GPU if self.precision == "auto" and device_type == "cuda" else super().computed_in(device_type, ours=ours)


AUTO_ON_GPU: Precision = "bf16"


class LearnedMask:
    """Scores of the feed-forward matrices of a model, and the weights that they leave.

    Args:
        model: the model; it is left as it is.
        config: ratio, groups and training of the scores.
        scores: where they start: fp32, by the names and of the shapes of the matrices. See `initial_scores`.

    Raises:
        UserError: scores of other tensors than the matrices, or a model in fp16; otherwise as `group_counts`.
    """

    def __init__(self, model: nn.Module, config: LearnedMaskConfig, scores: Mapping[str, Tensor]) -> None:
        refuse_fp16(model)
        self.model, self.config = model, config
        weights = {name: in_out(model, p.detach()) for name, p in mlp_parameters(model, matrices_only=True).items()}
        wrong = [name for name in {**weights, **scores} if not _fits(model, weights.get(name), scores.get(name))]
        if wrong:
            raise UserError(f"expected scores of the model's feed-forward matrices, each of its shape; got others at '{wrong[0]}'")
        groups = group_counts(model, {name: w.numel() for name, w in weights.items()}, config)
        self.shapes = {n: weights[n].shape for names, _ in groups for n in names}
        self.starts = dict(zip(self.shapes, accumulate((s.numel() for s in self.shapes.values()), initial=0), strict=False))
        self.parts = list(_parts([(names, sum(weights[n].numel() for n in names), count) for names, count in groups]))
        device = next(iter(weights.values())).device
        self.scores_P = torch.empty(sum(w.numel() for w in weights.values()), device=device)
        for name, part in self.split(self.scores_P).items():
            part.copy_(scores[name])
        self.dtype, self.passes = _precision(model, config.precision, next(iter(weights.values())))
        self.constants = constants(model, self.shapes, self.dtype)
        self.turned = use_kernel(self.scores_P) and not all(w.is_contiguous() for w in weights.values())
        """Whether matrices lie transposed in the model, so that masked weights do too: their gradients then come as they are needed."""
        self.pieces: Pieces | None = None
        self.by_kernels: Callable[[Tensor, Tensor], None] | None = None
        """Takes steps on tokens [K, B, T] with coefficients [K, B] by kernels, in place of autograd."""
        self.kept: dict[int, Tensor] = {}

    @cached_property
    def velocity_P(self) -> Tensor:
        """SGD's momentum, made when the first step needs it: by then the scores that were given are gone."""
        return torch.zeros_like(self.scores_P)

    def masked(self) -> Substituted:
        """The model under the current mask."""
        return Substituted(self.model, {**self.constants, **self.matrices()})

    def matrices(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The matrices that the mask leaves, as the model has them, each on its device."""
        found: dict[str, Tensor] = {}
        for part, kept_n in zip(self.parts, self.masked_weights(dtype), strict=True):
            found |= self._shaped(part.names, kept_n)
        return found

    def masked_weights(self, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """The weights that the mask leaves, 0 where one is dropped, flat and part by part; each matrix as `_shaped` reads it."""
        lowest = self.config.drop == "lowest"
        for part in self.parts:
            weights_GN, scores_GN = self.own_weights(part).view(part.groups, part.size), part.of(self.scores_P)
            kept_n = without_extreme(weights_GN, scores_GN, part.count, lowest=lowest, dtype=dtype or self.dtype).flatten()
            yield turned(kept_n, [self.shapes[name] for name in part.names]) if self.turned else kept_n

    def step(self, rows: Rows, coefficient_B: Tensor, index_B: Tensor | None = None) -> None:
        """Lower sum(coefficient * loss of a row) by one step of SGD on the scores; the model's own weights stay as they are.

        Args:
            rows: rows of a batch, or those that `index_B` chooses a batch from.
            coefficient_B: of each row of the batch [B].
            index_B: which rows they are; None: all.
        """
        index_B = torch.arange(len(coefficient_B), device=rows.ids.device) if index_B is None else index_B
        self._by_autograd(rows, coefficient_B, index_B)
        self.scores_P.add_(self.velocity_P, alpha=-self.config.learning_rate)

    def steps(self, rows: Rows, coefficient_KB: Tensor, index_KB: Tensor) -> None:
        """Steps on several batches of one size in turn, by kernels where there are some."""
        if self.by_kernels is not None:
            self.by_kernels(rows.ids[index_KB], coefficient_KB)
            return
        for coefficient_B, index_B in zip(coefficient_KB, index_KB, strict=True):
            self.step(rows, coefficient_B, index_B)

    def _by_autograd(self, rows: Rows, coefficient_B: Tensor, index_B: Tensor) -> None:
        # each matrix a leaf of its own, so that its gradient comes as soon as it is known, and no two are held at once
        leaves = {name: matrix.detach().requires_grad_() for name, matrix in self.matrices().items()}
        model, started = Substituted(self.model, {**self.constants, **leaves}), set[str]()
        self.pieces = self.pieces or beside_scores(self.model, rows.ids.shape[1])

        def share(at_b: Tensor) -> Tensor:
            losses_b = row_losses(model, rows.take(index_B[at_b]))
            return (losses_b * coefficient_B[at_b].to(losses_b.device)).sum()

        def add(name: str, gradient: Tensor) -> None:
            self._accelerate(name, gradient, first=name not in started)
            started.add(name)

        add_gradients(self.pieces, torch.arange(len(index_B), device=rows.ids.device), share, leaves, add)

    @torch.no_grad()
    def _accelerate(self, name: str, gradient: Tensor, *, first: bool) -> None:
        """Add a gradient of a masked matrix to its velocity. With w (1 - d) treated as w (1 -+ |s|): -+ gradient * w * sgn(s)."""
        score, velocity, device = self._of(name, self.scores_P), self._of(name, self.velocity_P), self.scores_P.device
        gradient, weight = (in_out(self.model, matrix.detach()).to(device) for matrix in (gradient, self.model.get_parameter(name)))
        sign, momentum, decay = (-1.0 if self.config.drop == "highest" else 1.0), self.config.momentum, self.config.weight_decay
        if use_kernel(self.scores_P):
            from tinymem.mitigation.methods.weight._velocity_kernel import accelerate

            return accelerate(gradient, weight, score, velocity, sign=sign, first=first, momentum=momentum, decay=decay)
        slope = gradient.to(torch.float32).mul_(weight).mul_(score.sgn()).mul_(sign)
        if first:
            slope.add_(score, alpha=decay)
            velocity.mul_(momentum)
        velocity.add_(slope)

    def edited(self) -> nn.Module:
        """A copy of the model without the dropped weights.

        Raises:
            UserError: training the scores ended in NaN or infinity.
        """
        if not all(bool(torch.isfinite(part.flat(self.scores_P)).all()) for part in self.parts):
            raise UserError("expected finite scores, got NaN or infinity: the mask's training diverged; try a lower learning_rate")
        edited = copied(self.model)
        with torch.no_grad():
            for part, kept in zip(self.parts, self.masked_weights(edited.get_parameter(self.parts[0].names[0]).dtype), strict=True):
                for name, weight in self._shaped(part.names, kept).items():
                    edited.get_parameter(name).copy_(weight)
        return edited

    def ranked(self) -> Scores:
        """The matrices' weights by when they are dropped: |score|, or its negative where the lowest are."""
        sign = -1.0 if self.config.drop == "lowest" else 1.0
        return Scores("weight", {name: part.abs() * sign for name, part in self.split(self.scores_P).items()})

    def split(self, flat_P: Tensor) -> dict[str, Tensor]:
        """The parts of a flat tensor [P], one per matrix and of its shape in the model: views."""
        parts = flat_P.split([shape.numel() for shape in self.shapes.values()])
        return {name: in_out(self.model, part.view(shape)) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _of(self, name: str, flat_P: Tensor) -> Tensor:
        """A matrix's share of a flat tensor, in the published layout: a view."""
        shape, start = self.shapes[name], self.starts[name]
        return flat_P[start : start + shape.numel()].view(shape)

    def _shaped(self, names: Sequence[str], flat_n: Tensor) -> dict[str, Tensor]:
        """Consecutive matrices by name, of a flat tensor that holds them: views, but for those that the model has on another device."""
        parts = flat_n.split([self.shapes[name].numel() for name in names]) if len(names) > 1 else (flat_n,)
        shaped = {name: self._matrix(name, part) for name, part in zip(names, parts, strict=True)}
        return {name: matrix.to(self.model.get_parameter(name).device) for name, matrix in shaped.items()}

    def _matrix(self, name: str, flat_n: Tensor) -> Tensor:
        """A matrix as the model has it: a view."""
        return flat_n.view(self.shapes[name][::-1]) if self.turned else in_out(self.model, flat_n.view(self.shapes[name]))

    def own_weights(self, part: _Part) -> Tensor:
        """The model's own weights of a part, flat; kept where a GPU's steps are short and the model small."""
        if (kept := self.kept.get(part.start)) is not None:
            return kept
        own = [self.model.get_parameter(name).detach().to(self.scores_P.device) for name in part.names]
        flat = [(matrix if self.turned else in_out(self.model, matrix)).flatten() for matrix in own]
        found = flat[0] if len(flat) == 1 else torch.cat(flat)
        found = turned(found, [matrix.shape for matrix in own]) if self.turned else found
        if self.scores_P.is_cuda and size_of(self.model) < LARGE:
            self.kept[part.start] = found
        return found


def turned(flat_n: Tensor, shapes: Sequence[torch.Size]) -> Tensor:
    """Consecutive matrices of these shapes, each transposed, on a GPU."""
    from tinymem.mitigation.methods.weight._velocity_kernel import transpose

    out_n, sizes = torch.empty_like(flat_n), [shape.numel() for shape in shapes]
    for shape, matrix, out in zip(shapes, flat_n.split(sizes), out_n.split(sizes), strict=True):
        transpose(matrix.view(shape), out)
    return out_n


@dataclass(frozen=True)
class _Part:
    """Consecutive groups of one size, and how many weights of each are dropped: what is computed at once."""

    names: tuple[str, ...]
    groups: int
    size: int
    count: int
    start: int

    def flat(self, flat_P: Tensor) -> Tensor:
        """This part of a flat tensor: a view."""
        return flat_P[self.start : self.start + self.groups * self.size]

    def of(self, flat_P: Tensor) -> Tensor:
        """This part of a flat tensor, a row [N] a group: a view."""
        return self.flat(flat_P).view(self.groups, self.size)


def _parts(groups: Sequence[tuple[list[str], int, int]]) -> Iterator[_Part]:
    """Parts of (names, size, count) a group: equal groups in a row together, as many as `PART` entries hold."""
    start = 0
    for (size, count), same in groupby(groups, key=lambda group: group[1:]):
        names, at_once = [group[0] for group in same], max(1, PART // size)
        for taken in (names[k : k + at_once] for k in range(0, len(names), at_once)):
            yield _Part(tuple(name for group in taken for name in group), len(taken), size, count, start)
            start += len(taken) * size


def _precision(model: nn.Module, chosen: Precision, weights: Tensor) -> tuple[torch.dtype, Callable[[], AbstractContextManager[None]]]:
    """Type of the weights in the passes, and what makes the context of a pass: in bf16 with training's attention."""
    if chosen == "auto":
        chosen = AUTO_ON_GPU if weights.is_cuda else "fp32"
    if weights.dtype != torch.float32:
        return weights.dtype, nullcontext
    if chosen == "bf16":
        return torch.bfloat16, partial(row_attention_in, model)
    return torch.float32, _ShortProducts if chosen == "tf32" else nullcontext


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
    return {name: u.mul_(2).sub_(1).mul_(1 / math.sqrt(in_out(model, u).shape[0])) for name, u in drawn.items()}


def _fits(model: nn.Module, weight: Tensor | None, score: Tensor | None) -> bool:
    return weight is not None and score is not None and in_out(model, score).shape == weight.shape
