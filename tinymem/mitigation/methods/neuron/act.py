"""Act: zero the neurons that are most active while the memorized suffix is predicted.

Idea: neurons with large activations and large value vectors write most into the residual stream.
Formula: score of neuron i in layer l = mean over suffix-predicting positions t of |h_ti| times the norm of its value vector v_i.
Source: Chang et al. 2024, section 3 ("Activations"); TinyMem paper, section 3.3. Their code takes the absolute value after the mean
    (`mode: abs_mean`); published TinyMem numbers do so too, over sequences and positions together.
Cost: one forward pass over the forget rows; memory of one layer's activations.
Options: ratio, of, scope (per layer, the same number each), skip_bottom, mode, batch_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation import grids
from tinymem.mitigation.ablation import Scores
from tinymem.mitigation.config import Grid
from tinymem.mitigation.method import MitigationData, Properties, scorer
from tinymem.mitigation.methods.neuron._common import NeuronConfig, activity, as_scores, predicting
from tinymem.mitigation.methods.pieces import Pieces
from tinymem.models.adapters import logits, neuron_layers, seen_neurons


@dataclass(frozen=True, kw_only=True)
class ActConfig(NeuronConfig):
    """Options of Act. The grid is that of the paper's A.3.5."""

    mode: Literal["mean_abs", "abs_mean"] = "mean_abs"
    batch_size: int = 512

    grid: ClassVar[Grid] = grids.NEURON
    published_grid: ClassVar[Grid] = grids.NEURON_RUN


@torch.no_grad()
def by_row(model: nn.Module, data: MitigationData, config: ActConfig) -> Tensor:
    """Scores [S, L, F] of each row's suffix."""
    return torch.cat(list(activity(model, data.forget, config.batch_size, config.mode))) * _norms_LF(model).float()


@scorer("act", config=ActConfig, properties=Properties(unit="neuron", order="zeroth"), by_row=by_row)
@torch.no_grad()
def act(model: nn.Module, data: MitigationData, config: ActConfig) -> Scores:
    """Mean absolute activations [neurons] per layer."""
    layers, rows = neuron_layers(model), data.forget
    sums = [torch.zeros(layer.neurons, dtype=torch.float64, device=layer.weight.device) for layer in layers]
    pieces = Pieces(model, rows.ids.shape[1], gradients=False)
    for index in torch.arange(len(rows), device=rows.ids.device).split(config.batch_size):
        pieces.run(index, lambda at, _: _add(sums, model, rows.take(at), config.mode))
    means_LF = torch.stack([total.to(sums[0].device) for total in sums]).abs() / max(1, int(predicting(rows).sum()))
    return as_scores(model, (means_LF * _norms_LF(model)).float(), config)


def _add(sums: list[Tensor], model: nn.Module, rows: Rows, mode: str) -> None:
    """Add the rows' activations [F] of each layer where a suffix is predicted; none of them if the pass fails."""
    predicts_BT, found = predicting(rows), {}

    def see(layer: int, h_BTF: Tensor) -> None:
        found[layer] = _sum_at(h_BTF, predicts_BT.to(h_BTF.device), mode)

    with seen_neurons(model, see):
        logits(model, rows.ids, rows.ids.shape[1] - 1)
    for layer, total in enumerate(sums):
        total += found[layer]


def _norms_LF(model: nn.Module) -> Tensor:
    layers = neuron_layers(model)
    return torch.stack([layer.values_FD().double().norm(dim=1).to(layers[0].weight.device) for layer in layers])


def _sum_at(h_BTF: Tensor, at_BT: Tensor, mode: str) -> Tensor:
    chosen = h_BTF[at_BT].double()
    return (chosen.abs() if mode == "mean_abs" else chosen).sum(0)
