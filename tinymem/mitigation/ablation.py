"""Select, ablate: from one number per neuron or weight to a model without those that are most to blame."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Literal

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.ranking import highest
from tinymem.models.adapters import NeuronLayer, in_out, layer_of, neuron_layers
from tinymem.models.copied import copied

Scope = Literal["tensor", "layer", "model"]


class Refused(UserError):
    """A configuration that can do nothing, such as a ratio that rounds to no neuron: a row of status `refused`, not a failure."""


class ModelChanged(Refused):
    """A method that changed the model it was given, which has to be loaded again before anything else is done with it."""


@dataclass(frozen=True, kw_only=True)
class AblationConfig(MethodConfig):
    """Options of every method that zeroes neurons or weights.

    Attributes:
        ratio: share of the eligible neurons or weights to zero, in [0, 1]; 0 is the control.
        of: base of `ratio`: the `eligible` parts, or all parameters of the `model` (paper, A.3.3).
        scope: where the highest scores are compared: within each `tensor`, each `layer`, or the whole `model`.
    """

    ratio: float = 0.05
    of: Literal["eligible", "model"] = "eligible"
    scope: Scope = "layer"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise UserError(f"expected ratio in [0, 1], got {self.ratio:g}; it is a share: try ratio=0.05")
        super().__post_init__()

    def eligible(self, layers: list[NeuronLayer]) -> list[NeuronLayer]:
        """The layers whose neurons may be zeroed, from bottom to top."""
        return layers


@dataclass(frozen=True)
class Scores:
    """One number per neuron or weight; larger = more to blame.

    `values` maps the parameter's name to a tensor: of the parameter's shape for weights, [neurons] for neurons (under the name of the
    out-projection whose inputs they are). NumPy's arrays become tensors.
    """

    unit: Literal["neuron", "weight"]
    values: dict[str, Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {name: torch.as_tensor(values) for name, values in self.values.items()})


@dataclass(frozen=True)
class Mask:
    """The neurons or weights to zero: a boolean tensor per parameter, shaped as in `Scores`."""

    unit: Literal["neuron", "weight"]
    values: dict[str, Tensor]

    def count(self) -> int:
        """Number of chosen neurons or weights."""
        return sum(int(m.sum()) for m in self.values.values())


def select(model: nn.Module, scores: Scores, config: AblationConfig) -> Mask:
    """Choose the highest scores of each group, exactly as many as the ratio says; ties go to the earlier neuron or weight (`in_out`).

    Raises:
        Refused: a positive ratio that rounds to nothing in every group.
        UserError: `of: model` requires more than are eligible; the scores are missing, NaN, or of other tensors than the model's.
    """
    check_scores(model, scores)
    masks: dict[str, Tensor] = {}
    sizes = {name: s.numel() for name, s in scores.values.items()}
    for names, count in group_counts(model, sizes, config):
        chosen = highest([in_out(model, scores.values[name]) for name in names], count)
        masks |= {name: in_out(model, mask) for name, mask in zip(names, chosen, strict=True)}
    return Mask(scores.unit, masks)


def check_scores(model: nn.Module, scores: Scores) -> None:
    """Raise UserError unless there is a number for each neuron or weight of some of the model's tensors; NaN has no rank."""
    if not isinstance(scores, Scores):
        raise UserError(f"expected Scores from the method, got {type(scores).__name__}; return one")
    known: dict[str, tuple[int, ...]]
    if scores.unit == "neuron":
        known = {layer.weight_name: (layer.neurons,) for layer in neuron_layers(model)}
    else:
        known = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, values in scores.values.items():
        if known.get(name) != tuple(values.shape):
            found = f"expected scores of shape {known[name]}" if name in known else f"expected names of {scores.unit} tensors"
            raise UserError(f"{found}, got '{name}' of shape {tuple(values.shape)}; see the docstring of Scores")
        if values.isnan().any():
            raise UserError(f"expected numbers as scores, got NaN in '{name}'; is the method's loss or gradient finite?")
    if not scores.values:
        raise UserError("expected scores of some tensors, got none; see the docstring of Scores")


def group_counts(model: nn.Module, sizes: dict[str, int], config: AblationConfig) -> list[tuple[list[str], int]]:
    """Groups of tensors that are ranked together, each with the number of entries to choose.

    `sizes` maps a tensor's name to its eligible entries. Raises as `select`.
    """
    groups: dict[object, list[str]] = {}
    for name in sizes:
        key = name if config.scope == "tensor" else layer_of(model, name) if config.scope == "layer" else None
        groups.setdefault(key, []).append(name)
    eligible = sum(sizes.values())
    if not eligible:
        raise UserError("expected neurons or weights to choose from, got none; of a model of one layer skip_bottom leaves nothing")
    total = sum(p.numel() for p in model.parameters()) if config.of == "model" else eligible
    if config.ratio * total > eligible * (1 + 1e-9):
        raise UserError(f"expected at most {eligible} neurons or weights to zero, got {config.ratio:g} of {total}; lower ratio")
    counts = []
    for names in groups.values():
        share = sum(sizes[n] for n in names) / eligible
        counts.append((names, int(config.ratio * total * share + 1e-6)))  # the margin undoes 0.29 * 100 = 28.999...
    if config.ratio > 0 and not any(count for _, count in counts):
        largest = max(sum(sizes[n] for n in names) for names in groups.values()) * total / eligible
        raise Refused(f"ratio {config.ratio:g} rounds to nothing here; the smallest that acts is {_rounded_up(1 / largest):g}")
    return counts


def _rounded_up(ratio: float) -> float:
    """The ratio to three digits, rounded up: a ratio rounded down would be refused again."""
    up = Context(prec=3, rounding=ROUND_CEILING)
    return float(up.create_decimal_from_float(ratio * (1 - 1e-9)))  # 1 / 50 is a little more than 0.02, and must not become 0.0201


def ablate(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy of the model with the chosen weights zeroed, or with the value vectors of the chosen neurons zeroed.

    Zeroing a neuron's value vector equals multiplying its activation by zero at every position.
    """
    edited = copied(model)
    with torch.no_grad():
        if mask.unit == "neuron":
            for layer in neuron_layers(edited):
                if layer.weight_name in mask.values:
                    values_FD = layer.values_FD()
                    values_FD[mask.values[layer.weight_name].to(values_FD.device)] = 0
        else:
            parameters = dict(edited.named_parameters())
            for name, chosen in mask.values.items():
                parameters[name].masked_fill_(chosen.to(parameters[name].device), 0)
    return edited
