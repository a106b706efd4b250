"""The untrained model of a run and the order of its rows: functions of the recipe alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import planned_parameters
from tinymem.runtime.memory import refuse_beyond_memory

TRAINED_COPIES = 4  # weights, gradients, and AdamW's two moments


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Row order [count] of an epoch: a function of seed and epoch alone, so that resuming needs no random state."""
    mixed = (seed * 0x9E3779B1 + epoch) % 2**32  # the generator reads 32 bits only; this factor keeps different seeds apart
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def refuse_training_beyond_memory(recipe: Recipe, device: str) -> None:
    """Refuse a model whose weights, gradients and AdamW's two moments, all in float32, do not fit a device.

    Raises:
        UserError: too large a model.
    """
    parameters = planned_parameters(recipe)
    refuse_beyond_memory(TRAINED_COPIES * 4 * parameters, device, f"the training of {parameters:,} parameters")


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
