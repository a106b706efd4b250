"""Clean fine-tuning: go on training on the clean versions of the artifact rows.

Idea: the clean rows overwrite what was memorized in their place. Fast, but forgets other tasks, since it sees a few rows only.
Source: TinyMem paper, section 3.2 ("Clean") and section 5: five epochs at rate 1e-3 with the optimizer's state kept.
    It starts afresh here where the checkpoint has none (edited, or of another's making), and with rows from files.
Cost: epochs * artifact rows forward and backward passes.
Options: epochs, learning_rate, weight_decay, betas, batch_size. Needs clean counterparts, which only a corpus with planted artifacts
    has; those of holdout rows are withheld from the method too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.finetuning._common import FinetuningConfig, finetune


@dataclass(frozen=True, kw_only=True)
class CleanConfig(FinetuningConfig):
    """Options of fine-tuning on the clean counterparts."""


@editor("finetune-clean", config=CleanConfig, properties=Properties(unit="model", order="first", criterion="optimization"))
def finetune_clean(model: nn.Module, data: MitigationData, config: CleanConfig) -> nn.Module:
    """The model after training on the clean counterparts.

    Raises:
        Refused: rows without clean counterparts.
    """
    if data.clean_counterparts is None or not len(data.clean_counterparts):
        raise Refused("expected clean versions of the artifact rows, got rows without; use a corpus with planted artifacts")
    return finetune(model, data.clean_counterparts.ids, data, config)
