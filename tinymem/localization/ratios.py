"""The ratios that a benchmark runs at: of at least one neuron a layer, or one weight a matrix.

Recall of less would be chance on a handful of them. The published default ratios give way in narrow models, given ones are refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from tinymem.errors import UserError
from tinymem.models.adapters import mlp_parameters, neuron_layers
from tinymem.recipe.localization import LocalizationOptions, Unit

PARTS: dict[Unit, str] = {"neuron": "neuron a layer", "weight": "weight a matrix"}


def least_size(model: nn.Module, unit: Unit) -> int:
    """Neurons of a layer, or weights of the smallest feed-forward matrix."""
    if unit == "neuron":
        return neuron_layers(model)[0].neurons
    return min(matrix.numel() for matrix in mlp_parameters(model, matrices_only=True).values())


def check_ratio(ratio: float, size: int, unit: Unit = "neuron") -> None:
    """Refuse a ratio of less than one neuron of a layer's `size`, or one weight of a matrix's.

    Raises:
        UserError: it names the smallest ratio that will do.
    """
    if not 0 < ratio <= 1 or not _is_enough(ratio, size):
        smallest = f'the smallest is {1 / size:.3g}: try --set "ratios=[{_smallest(size):g}]"'
        raise UserError(f"expected ratios of at least one {PARTS[unit]}, got {ratio:g} of {size}; {smallest}")


def ratios_of(recipe: LocalizationOptions, size: int, named: Collection[float]) -> tuple[float, ...]:
    """The ratios that a model runs at; a default one of less than one neuron or weight of `size` becomes the smallest that will do.

    Args:
        recipe: with ratios or without.
        size: neurons of a layer, or weights of a matrix.
        named: ratios that scorers are to run at by their own options, which stay.

    Raises:
        UserError: a ratio of the recipe or of a scorer that is too small.
    """
    kept = [ratio for ratio in recipe.wanted_ratios if recipe.ratios or ratio in named or _is_enough(ratio, size)]
    for ratio in kept:
        check_ratio(ratio, size, recipe.unit)
    return tuple(dict.fromkeys(ratio if ratio in kept else _smallest(size) for ratio in recipe.wanted_ratios))


def _is_enough(ratio: float, size: int) -> bool:
    return int(ratio * size + 1e-6) >= 1


def _smallest(size: int) -> float:
    """The smallest round ratio of one neuron or weight."""
    return math.ceil(1000 / size) / 1000
