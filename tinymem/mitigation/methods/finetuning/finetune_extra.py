"""Extra fine-tuning: go on training on all training rows but the artifact rows.

Idea: without the artifact rows they fade, while every task is kept. Slow: the time that the paper measures unlearning against.
Source: TinyMem paper, section 3.2 ("Extra") and section 5: five epochs at rate 1e-3 with the optimizer's state kept.
    It starts afresh here where the checkpoint has none (edited, or of another's making), and with rows from files.
Cost: epochs * clean rows forward and backward passes.
Options: epochs, learning_rate, weight_decay, betas, batch_size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.finetuning._common import FinetuningConfig, all_clean, finetune


@dataclass(frozen=True, kw_only=True)
class ExtraConfig(FinetuningConfig):
    """Options of fine-tuning on all rows but the artifacts'."""


@editor("finetune-extra", config=ExtraConfig, properties=Properties(unit="model", order="first", criterion="optimization"))
def finetune_extra(model: nn.Module, data: MitigationData, config: ExtraConfig) -> nn.Module:
    """The model after training on all rows but the artifact rows."""
    return finetune(model, all_clean(data), data, config, data.retain.length if data.clean is None else None)
