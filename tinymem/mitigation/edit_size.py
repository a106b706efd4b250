"""The size of an edit, in all and per block: one pass over the parameters of a model before and after.

A parameter is *changed* if its value differs, and *zeroed* if it differs and is zero now. A neuron is zeroed if its whole value vector (its
weights in the block's out-projection) is zero now and was not before: that is the effect of an ablation, whichever method made it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.errors import UserError
from tinymem.models.adapters import family_of, layer_of, mlp_parameters, neuron_layers
from tinymem.results.nested import LayersColumn
from tinymem.runtime.device import in_one_transfer
from tinymem.runtime.segments import TOGETHER, concatenated, grouped, segment_sums


@dataclass(frozen=True)
class EditSize:
    """Counts and norm of the change between two models of one architecture.

    Attributes:
        changed: parameters whose value differs.
        norm: Euclidean norm of the change.
        by_layer: counts per block, bottom to top: `neurons` and `weights` zeroed in its feed-forward part, of how many there
            (`of_neurons`, `of_weights`: equal-length lists), parameters `changed` anywhere in the block, and `elsewhere` (one number)
            outside all blocks. None for a model family without a row in `tinymem.models.adapters`.
    """

    changed: int
    norm: float
    by_layer: LayersColumn | None


def edit_size(before: nn.Module, after: nn.Module) -> EditSize:
    """Compare two models of one architecture; one transfer from the device, however many parameters there are."""
    names = [name for name, _ in before.named_parameters()]
    old, new = ([parameter.detach() for parameter in model.parameters()] for model in (before, after))
    counts = in_one_transfer([row for i in grouped(old, TOGETHER) for row in _counts([old[k] for k in i], [new[k] for k in i])])
    found = dict(zip(names, counts, strict=True))
    try:
        by_layer = _by_layer(before, after, found)
    except UserError:  # a family that the adapters do not know
        by_layer = None
    return EditSize(sum(int(c[0]) for c in counts), sum(c[2] for c in counts) ** 0.5, by_layer)


def change(before: nn.Module, after: nn.Module) -> tuple[int, float]:
    """Number of parameters whose value changed, and the Euclidean norm of the change."""
    size = edit_size(before, after)
    return size.changed, size.norm


def _counts(old: list[Tensor], new: list[Tensor]) -> Tensor:
    """Of each parameter [G, 3] its changed and its zeroed entries, and with the first one the squared change of all, in float64."""
    before_P, after_P = (concatenated(parts).double() for parts in (old, new))
    difference_P, lengths = after_P - before_P, [part.numel() for part in old]
    changed_P = difference_P != 0
    found_G3 = difference_P.new_zeros(len(old), 3)
    found_G3[:, 0], found_G3[:, 1] = segment_sums(changed_P, lengths), segment_sums(changed_P & (after_P == 0), lengths)
    found_G3[0, 2] = difference_P.square().sum()
    return found_G3


def _by_layer(before: nn.Module, after: nn.Module, counts: dict[str, list[float]]) -> LayersColumn:
    layers = neuron_layers(before)
    prefix = family_of(before).blocks + "."
    changed, weights, of_weights = ([0] * len(layers) for _ in range(3))
    for name in (name for name in counts if name.startswith(prefix)):
        changed[layer_of(before, name)] += int(counts[name][0])
    for name, parameter in mlp_parameters(before).items():
        weights[layer_of(before, name)] += int(counts[name][1])
        of_weights[layer_of(before, name)] += parameter.numel()
    gone = [_empty(new.values_FD()) & ~_empty(old.values_FD()) for old, new in zip(layers, neuron_layers(after), strict=True)]
    return {
        "neurons": torch.stack([g.sum().to(gone[0].device) for g in gone]).tolist(),
        "of_neurons": [layer.neurons for layer in layers],
        "weights": weights,
        "of_weights": of_weights,
        "changed": changed,
        "elsewhere": sum(int(c[0]) for name, c in counts.items() if not name.startswith(prefix)),
    }


def _empty(values_FD: Tensor) -> Tensor:
    return (values_FD.detach() == 0).all(1)
