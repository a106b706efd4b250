"""Task vector: learn the memorized rows still better, and go the other way.

Formula: theta - strength * (theta_ft - theta), where theta_ft is the model after fine-tuning on the forget rows.
Source: Ilharco et al. 2023; not part of the TinyMem paper.
Cost: epochs * forget rows forward and backward passes.
Options: epochs, learning_rate, weight_decay, batch_size, over, strength.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.baselines._common import BaselineConfig, Batch, descend
from tinymem.mitigation.methods.losses import row_losses


@dataclass(frozen=True, kw_only=True)
class TaskVectorConfig(BaselineConfig):
    """Options of subtracting a task vector."""

    strength: float = 3.0


@editor("task-vector", config=TaskVectorConfig, properties=Properties(unit="model", order="first", criterion="optimization"))
def task_vector(model: nn.Module, data: MitigationData, config: TaskVectorConfig) -> nn.Module:
    """The model minus what fine-tuning on the forget rows adds to it."""

    def objective(tuned: nn.Module, batch: Batch) -> Tensor:
        return row_losses(tuned, batch.forget, config.over).sum() / len(batch.whole.forget)

    edited = descend(model, data, config, objective)
    with torch.no_grad():
        for new, old in zip(edited.parameters(), model.parameters(), strict=True):
            new.copy_(old - config.strength * (new - old))
    return edited
