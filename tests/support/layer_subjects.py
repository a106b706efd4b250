"""Small subjects of localization by layer: random GPT-2s of one beginning, and decisions in random rows."""

from __future__ import annotations

from copy import deepcopy

import torch

from tinymem.localization.layers.subject import Decisions, LayeredModel, LayerSubject, gpt_layers
from tinymem.models.gpt2 import GPT, GPTConfig

TOKENS, VOCABULARY, DEPTH = 10, 14, 3


def tiny_gpt(seed: int = 0, layers: int = DEPTH) -> GPT:
    """A random GPT-2 in double precision."""
    config = GPTConfig(vocab_size=VOCABULARY, n_positions=TOKENS, n_layer=layers, n_embd=16, n_head=2)
    return GPT(config, seed=seed).double().eval()


def random_decisions(rows: int, count: int, seed: int, *, clean: bool = False) -> Decisions:
    """Decisions at random places of random rows."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (rows, TOKENS), generator=generator)
    row = torch.randint(rows, (count,), generator=generator).sort().values
    at = torch.randint(TOKENS - 1, (count,), generator=generator)
    planted = torch.randint(4, (count,), generator=generator)
    return Decisions(ids, row, at, planted, planted if clean else (planted + 1) % 4)


def with_changed_block(model: GPT, layer: int, seed: int = 9) -> GPT:
    """A copy with another random block at one place."""
    changed = deepcopy(model)
    changed.transformer.h[layer].load_state_dict(tiny_gpt(seed, len(model.transformer.h)).transformer.h[layer].state_dict())
    return changed


def as_made_by(model: LayeredModel, decisions: Decisions) -> Decisions:
    """The decisions with the model's own predictions as planted targets."""
    from tinymem.localization.layers.subject import predictions

    likeliest = predictions(model, decisions).likeliest_n
    return Decisions(decisions.ids_RT, decisions.row_n, decisions.at_n, likeliest, decisions.original_n)


def subject_of(model: GPT, counterfactual: GPT, start: GPT | None = None) -> LayerSubject:
    """A subject whose planted targets are the model's own predictions."""
    own, other = gpt_layers(model), gpt_layers(counterfactual)
    noised = as_made_by(own, random_decisions(12, 20, 1))
    clean, held_out = random_decisions(20, 60, 2, clean=True), as_made_by(own, random_decisions(12, 20, 3, clean=True))
    all_clean = random_decisions(20, 120, 4, clean=True)
    return LayerSubject(own, other, gpt_layers(start or tiny_gpt(5)), own, noised, clean, held_out, all_clean, all_clean, exact=noised)
