"""RMU (representation misdirection): steer one layer's activations on the memorized rows to a random direction.

Formula: minimize forget_weight * mean squared distance of the block's output, where the suffix is predicted, to c * u, with u a random unit
    vector, + retain_weight * that of the rows to keep to the original's output, at all positions.
Source: Li et al. 2024 (layer 7 of 32, c from 2 to 20, feed-forward weights of three layers trained); not part of the TinyMem paper. Their
    u has positive coordinates only; here it is uniform on the sphere, since a layer norm would remove what all coordinates share.
Cost: epochs * 2 * forget rows forward and backward passes, and of the original a forward pass on each batch of rows to keep.
Options: epochs, learning_rate, weight_decay, batch_size, over (`row`: steer every position), forget_weight, retain_weight,
    depth (layer = depth * number of layers), layers (how many layers up to that one are trained), steering (c).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import Batch, RetainConfig, descend
from tinymem.mitigation.option_ranges import check_least
from tinymem.models.adapters import family_of, layer_of, logits, mlp_parameters


@dataclass(frozen=True, kw_only=True)
class RMUConfig(RetainConfig):
    """Options of RMU (representation misdirection)."""

    epochs: int = 10
    learning_rate: float = 1e-3
    depth: float = 0.5
    layers: int = 3
    steering: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, layers=1)
        if not 0 <= self.depth < 1:
            raise UserError(f"expected depth in [0, 1), got {self.depth:g}")


@editor("rmu", config=RMUConfig, properties=Properties(unit="model", order="first", criterion="optimization", dual_objective=True))
def rmu(model: nn.Module, data: MitigationData, config: RMUConfig) -> nn.Module:
    """The model with misdirected activations.

    Raises:
        UserError: there are no retain rows.
    """
    if not len(data.retain):
        raise UserError("expected rows to keep, got none: RMU anchors its activations on them")
    blocks = list(model.get_submodule(family_of(model).blocks).children())
    layer = int(config.depth * len(blocks))
    target_D = _unit_vector(model, data) * config.steering

    def objective(edited: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            anchor_BTD = block_output(model, batch.retain, layer)
        distance_BT = (block_output(edited, batch.forget, layer) - target_D).square().mean(-1)
        at_BT = batch.forget.own() if config.over == "row" else batch.forget.window().roll(-1, dims=1)
        forget = (distance_BT * at_BT).sum() / at_BT.sum()
        retain = _distance(block_output(edited, batch.retain, layer), anchor_BTD, batch.retain)
        return config.forget_weight * forget + config.retain_weight * retain

    trained = {n for n in mlp_parameters(model) if layer - config.layers < layer_of(model, n) <= layer}
    return descend(model, data, config, objective, trained.__contains__)


def _distance(states_BTD: Tensor, anchor_BTD: Tensor, rows: Rows) -> Tensor:
    if rows.length is None:
        return F.mse_loss(states_BTD, anchor_BTD)
    own_BT = rows.own()
    return F.mse_loss(states_BTD[own_BT], anchor_BTD[own_BT])


def block_output(model: nn.Module, rows: Rows, layer: int) -> Tensor:
    """Residual states [B, T, D] after a block."""
    found: list[Tensor] = []
    block = list(model.get_submodule(family_of(model).blocks).children())[layer]
    handle = block.register_forward_hook(lambda _m, _x, y: found.append(y if isinstance(y, Tensor) else y[0]))
    try:
        logits(model, rows.ids)
    finally:
        handle.remove()
    return found[0].float()


def _unit_vector(model: nn.Module, data: MitigationData) -> Tensor:
    width = next(p for p in model.parameters() if p.dim() == 2).shape[1]  # the token embedding comes first
    direction_D = torch.randn(width, generator=data.generator())
    return (direction_D / direction_D.norm()).to(data.forget.ids.device)
