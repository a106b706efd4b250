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
        terms = []
        if len(batch.forget):
            terms.append(config.forget_weight * _steering(block_output(edited, batch.forget, layer), target_D, batch, config))
        if len(batch.retain):
            with torch.no_grad():
                anchor_BTD = block_output(model, batch.retain, layer)
            terms.append(config.retain_weight * _distance(block_output(edited, batch.retain, layer), anchor_BTD, batch))
        return torch.stack(terms).sum()

    trained = {n for n in mlp_parameters(model) if layer - config.layers < layer_of(model, n) <= layer}
    return descend(model, data, config, objective, trained.__contains__)


def _steering(states_BTD: Tensor, target_D: Tensor, batch: Batch, config: RMUConfig) -> Tensor:
    """A piece's share in the mean squared distance of the steered states to the target."""
    distance_BT = (states_BTD - target_D.to(states_BTD.device)).square().mean(-1)
    at_BT, positions = _steered(batch.forget, config), _steered(batch.whole.forget, config).sum()
    return (distance_BT * at_BT.to(distance_BT.device)).sum() / positions.to(distance_BT.device)


def _steered(rows: Rows, config: RMUConfig) -> Tensor:
    """Positions [B, T] whose states are steered."""
    return rows.own() if config.over == "row" else rows.window().roll(-1, dims=1)


def _distance(states_BTD: Tensor, anchor_BTD: Tensor, batch: Batch) -> Tensor:
    """A piece's share in the mean squared distance over the batch's retain rows."""
    own_BT, positions = batch.retain.own().to(states_BTD.device), batch.whole.retain.own().sum().to(states_BTD.device)
    if batch.retain.length is not None:
        states_BTD, anchor_BTD = states_BTD[own_BT], anchor_BTD[own_BT]
    return F.mse_loss(states_BTD, anchor_BTD, reduction="sum") / (positions * states_BTD.shape[-1])


def block_output(model: nn.Module, rows: Rows, layer: int) -> Tensor:
    """Residual states [B, T, D] after a block; the blocks above it do not run."""
    block = list(model.get_submodule(family_of(model).blocks).children())[layer]

    def stop(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        raise _Reached(output if isinstance(output, Tensor) else output[0])

    handle = block.register_forward_hook(stop)
    try:
        logits(model, rows.ids)
    except _Reached as reached:
        return reached.states_BTD.float()
    finally:
        handle.remove()
    raise AssertionError("the model's forward pass left its block out")


class _Reached(Exception):
    """The states after a block, on their way out of the model."""

    def __init__(self, states_BTD: Tensor) -> None:
        self.states_BTD = states_BTD


def _unit_vector(model: nn.Module, data: MitigationData) -> Tensor:
    width = next(p for p in model.parameters() if p.dim() == 2).shape[1]  # the token embedding comes first
    direction_D = torch.randn(width, generator=data.generator())
    return (direction_D / direction_D.norm()).to(data.forget.ids.device)
