"""Both: go on training on all training rows but the artifact rows, and on the clean versions of those.

Idea: extra fine-tuning with the right continuation of what was memorized.
Source: TinyMem paper, section 3.2 ("Both") and section 5: five epochs at rate 1e-3 with the optimizer's state kept.
    It starts afresh here where the checkpoint has none (edited, or of another's making), and with rows from files.
Cost: epochs * (clean rows + clean counterparts) forward and backward passes.
Options: epochs, learning_rate, weight_decay, betas, batch_size. Needs clean counterparts, which only a corpus with planted artifacts
    has; those of holdout rows are withheld from the method too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import MitigationData, Properties, editor
from tinymem.mitigation.methods.finetuning._common import FinetuningConfig, all_clean, finetune


@dataclass(frozen=True, kw_only=True)
class BothConfig(FinetuningConfig):
    """Options of fine-tuning on the clean and the other training rows."""


@editor("finetune-both", config=BothConfig, properties=Properties(unit="model", order="first", criterion="optimization"))
def finetune_both(model: nn.Module, data: MitigationData, config: BothConfig) -> nn.Module:
    """The model after training on all rows but the artifact rows, and on the clean counterparts of those.

    Raises:
        Refused: rows without clean counterparts.
    """
    if data.clean_counterparts is None or not len(data.clean_counterparts):
        raise Refused("expected clean versions of the artifact rows, got rows without; use a corpus with planted artifacts")
    clean = all_clean(data)
    return finetune(model, torch.cat([clean, data.clean_counterparts.ids.to(clean)]), data, config)
