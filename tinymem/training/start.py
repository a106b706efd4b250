"""The untrained model of a run and the order of its rows: functions of the recipe alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import planned_parameters, step_floats
from tinymem.runtime.memory import refuse_beyond_memory
from tinymem.training.loss import LOGITS_AT_A_TIME

TRAINED_COPIES = 4  # weights, gradients, and AdamW's two moments


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Row order [count] of an epoch: a function of seed and epoch alone, so that resuming needs no random state."""
    mixed = (seed * 0x9E3779B1 + epoch) % 2**32  # the generator reads 32 bits only; this factor keeps different seeds apart
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def refuse_training_beyond_memory(recipe: Recipe, rows: int, device: str) -> None:
    """Refuse a model whose training on so many rows an epoch does not fit a device.

    Raises:
        UserError: too large a model, or too large batches.
    """
    what = f"the training of {planned_parameters(recipe):,} parameters on batches of {recipe.training.batch_size} rows"
    refuse_beyond_memory(training_bytes(recipe, rows, device), device, what, "use a larger machine, a smaller model or training.batch_size")


def training_bytes(recipe: Recipe, rows: int, device: str) -> int:
    """Bytes that training takes besides the corpus: weights, gradients and AdamW's moments in float32, and on CPUs what a step keeps.

    On GPUs kernels and types decide what a step keeps, and it is not counted.
    """
    step = 0 if device.startswith("cuda") else step_floats(recipe, rows, LOGITS_AT_A_TIME)
    return 4 * (TRAINED_COPIES * planned_parameters(recipe) + step)


def fresh_model(recipe: Recipe, row_tokens: int, corpus: Corpus | None = None) -> GPT:
    """The untrained model of a recipe; its vocabulary and special tokens are those of the corpus, or of math."""
    sizes = recipe.model.model_dump()
    if corpus is None:
        return GPT(math_config(n_positions=row_tokens, **sizes), seed=recipe.seed)
    config = GPTConfig(
        vocab_size=corpus.vocab_size,
        n_positions=row_tokens,
        bos_token_id=corpus.bos,
        eos_token_id=corpus.eos,
        pad_token_id=corpus.pad,
        **sizes,
    )
    return GPT(config, seed=recipe.seed)
