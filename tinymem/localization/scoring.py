"""Scores of single sequences from any registered neuron scorer, for models that each hold another injected sequence.

Shape suffixes: S sequences, L layers, F neurons of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.localization.injection import Injection, injected, injected_together
from tinymem.mitigation.ablation import AblationConfig, check_scores
from tinymem.mitigation.method import MethodCall, MitigationData, scores_of
from tinymem.mitigation.methods.neuron._common import NeuronConfig
from tinymem.mitigation.methods.neuron._gates import GatesConfig
from tinymem.models.adapters import neuron_layers
from tinymem.runtime.progress import SilentBar


def refuse_unless_neurons(call: MethodCall) -> None:
    """Raise UserError unless the method scores neurons."""
    if call.method.kind != "score" or call.method.properties.unit != "neuron" or not isinstance(call.config, AblationConfig):
        raise UserError(f"expected methods that score neurons (act, ig, zero, slim, hard-concrete, ...), got {call.name}")


def scores_by_sequence(call: MethodCall, model: nn.Module, data: MitigationData) -> Tensor:
    """Scores [S, L, F] of each of `data.forget` by itself; a scorer without scores of single rows is asked once a row.

    Raises:
        UserError: no scorer of neurons.
    """
    refuse_unless_neurons(call)
    if call.method.by_row is not None and isinstance(call.config, NeuronConfig):
        return _of_rows(call.method.by_row, call, model, data)
    return torch.stack([_of_set(call, model, replace(data, forget=row)) for row in data.forget.batches(1)])


def scores_of_injected(call: MethodCall, model: nn.Module, data: MitigationData, injection: Injection) -> Tensor:
    """Scores [S, L, F]: sequence s scored on the model that holds it.

    Learned gates never look at value vectors, so all S models run as one batch; other scorers see one model after the other.

    Raises:
        UserError: no scorer of neurons.
    """
    refuse_unless_neurons(call)
    if isinstance(call.config, GatesConfig) and call.method.by_row is not None:
        with injected_together(model, injection):
            return _of_rows(call.method.by_row, call, model, data)
    found = []
    data.bar.expect(len(injection))
    for sequence in range(len(injection)):
        with injected(model, injection, sequence):
            alone = replace(data, forget=_row(data.forget, sequence), bar=SilentBar())
            found.append(scores_by_sequence(call, model, alone)[0])
        data.bar.advance(1)
    return torch.stack(found)


def _of_rows(by_row: Callable[..., Tensor], call: MethodCall, model: nn.Module, data: MitigationData) -> Tensor:
    """A scorer's own scores [S, L, F] of rows by themselves: a number for each neuron, since NaN has no rank."""
    scores_SLF, layers = by_row(model, data, call.config), neuron_layers(model)
    expected = (len(data.forget), len(layers), layers[0].neurons)
    if not isinstance(scores_SLF, Tensor) or tuple(scores_SLF.shape) != expected:
        found = tuple(scores_SLF.shape) if isinstance(scores_SLF, Tensor) else type(scores_SLF).__name__
        raise UserError(f"expected scores of shape {expected} (rows, layers, neurons) from by_row, got {found}")
    if scores_SLF.isnan().any():
        raise UserError("expected numbers as scores, got NaN; is the method's loss or gradient finite?")
    return scores_SLF


def _row(rows: Rows, sequence: int) -> Rows:
    return rows.take(torch.tensor([sequence], device=rows.ids.device))


def _of_set(call: MethodCall, model: nn.Module, data: MitigationData) -> Tensor:
    """Scores [L, F] of all rows together, in double precision, so that scores of any type keep their order."""
    scores = scores_of(call.method, model, data, call.config)
    check_scores(model, scores)
    layers = neuron_layers(model)
    lowest = torch.full((layers[0].neurons,), -torch.inf, dtype=torch.float64, device=data.forget.ids.device)
    return torch.stack([scores.values.get(layer.weight_name, lowest).to(lowest) for layer in layers])
