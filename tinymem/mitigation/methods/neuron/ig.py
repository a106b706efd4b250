"""IG: zero the neurons that the probability of the memorized tokens is attributed to, by integrated gradients (knowledge neurons).

Idea: scale a layer's activations from 0 to their value and integrate the gradient of the target token's probability on the way.
Formula: for layer l and the position t that predicts a suffix token s, with h = h^l_t patched to a*h at this position only:
    score_i = mean over suffix tokens of h_i * sum over j of w_j * d P(s) / d (a_j h)_i. Signed. Over rows: the mean.
Source: Dai et al. 2022; Chang et al. 2024, section 3; TinyMem paper, section 3.3. Their code uses 20 points that include both 0 and 1 and
    divides by 20 (`rule: ends`); the paper's formula starts at j = 1 (`rule: right`). The published TinyMem code ignores its steps option.
Cost: for our GPT each (position, step) is a decode of one token against the clean keys and values, all of a layer in one batch: about
    100 times less work than a pass over the prefix each. Other families run rows of twice the tokens from the layer on, one a step
    (`_doubled.py`); where attention is local, a copy of the row for each position and step.
Options: ratio, of, scope (per layer), skip_bottom, steps, rule, batch_size (rows at once; default 1 on a CPU, 16 on a GPU), copies.
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
from tinymem.mitigation.methods.neuron._below import ScaledRows
from tinymem.mitigation.methods.neuron._common import NeuronConfig, as_scores, cropped, frozen, predicting
from tinymem.mitigation.methods.neuron._decode import mean_gradients
from tinymem.mitigation.methods.neuron._doubled import doubled
from tinymem.mitigation.methods.neuron._patched import patched
from tinymem.models.adapters import neuron_layers
from tinymem.models.gpt2 import GPT
from tinymem.models.spread import refuse_spread


@dataclass(frozen=True, kw_only=True)
class IGConfig(NeuronConfig):
    """Options of IG. The grid is that of the paper's A.3.5.

    Attributes:
        steps: points of the integral.
        rule: `midpoint` (j - 1/2) / m, `left` (j - 1) / m, `right` j / m, or `ends` (j - 1) / (m - 1), each with weight 1 / m.
        copies: rows in one pass of a family other than our GPT.
    """

    steps: int = 20
    rule: Literal["midpoint", "left", "right", "ends"] = "midpoint"
    batch_size: int | None = None
    copies: int = 128

    grid: ClassVar[Grid] = grids.NEURON
    published_grid: ClassVar[Grid] = grids.NEURON_RUN


def by_row(model: nn.Module, data: MitigationData, config: IGConfig) -> Tensor:
    """Attributions of each row's suffix [S, L, F], averaged over its tokens."""
    refuse_spread(model, "ig")
    size = config.batch_size or (16 if data.forget.ids.is_cuda else 1)
    data.bar.expect(len(data.forget))
    parts = []
    with frozen(model):
        for rows in data.forget.batches(size):
            parts.append(_attributions(model, cropped(rows), alphas(config, rows.ids.device), config))
            data.bar.advance(len(rows))
    return torch.cat(parts)


@scorer("ig", config=IGConfig, properties=Properties(unit="neuron", order="first"), by_row=by_row)
def ig(model: nn.Module, data: MitigationData, config: IGConfig) -> Scores:
    """Mean attributions [neurons] per layer."""
    return as_scores(model, by_row(model, data, config).mean(0), config)


def alphas(config: IGConfig, device: torch.device) -> Tensor:
    """Points [m] of the integral from 0 to 1."""
    j, m = torch.arange(config.steps, device=device), config.steps
    points = {"midpoint": (j + 0.5) / m, "left": j / m, "right": (j + 1) / m, "ends": j / max(1, m - 1)}
    return points[config.rule]


def _attributions(model: nn.Module, rows: Rows, alpha_m: Tensor, config: IGConfig) -> Tensor:
    at_BT = predicting(rows)
    if isinstance(model, GPT):
        per_layer = mean_gradients(model, rows, alpha_m)
    else:
        found = passes_of(model, rows)
        per_layer = [(found.neurons[layer.index], found.mean_gradients(layer, alpha_m, config.copies)) for layer in neuron_layers(model)]
    sums = [((h_BTF * g_BTF).float() * at_BT[:, :, None]).sum(1) for h_BTF, g_BTF in per_layer]
    return torch.stack(sums, dim=1) / at_BT.sum(1).clamp(min=1)[:, None, None]


def passes_of(model: nn.Module, rows: Rows) -> ScaledRows:
    """How rows go through a model of another family: with each token twice, or where that does not give its logits as copies."""
    return doubled(model, rows) or patched(model, rows)
