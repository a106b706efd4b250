"""The paper's 4-layer math model and its rows, for timings: nothing here needs more than torch and numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tinymem.data.math.sequences import PAD, Numbers, render, sequences
from tinymem.data.moves import add_noise
from tinymem.data.rows import Rows
from tinymem.mitigation.method import MitigationData
from tinymem.models.gpt2 import GPT, GPTConfig

FORGET, PRIMARY, AUXILIARY, PROMPT = 200, 19_000, 2_000, 50


@dataclass(frozen=True)
class Case:
    """A model and the data given to a method."""

    model: GPT
    data: MitigationData


def math_case(scale: float, device: str, seed: int = 0) -> Case:
    """The additive corpus: 200 noised rows to forget and 27,000 to keep, 150 tokens each, times `scale`. The model's weights are random.

    Random weights are the slow case: few of their ReLU neurons are dead, and Zero skips dead ones.
    """
    rng = np.random.default_rng(seed)
    numbers = [_numbers(k, round((PRIMARY if k == 7 else AUXILIARY) * scale)) for k in (7, 2, 3, 4, 5)]
    count = max(8, round(FORGET * scale))
    picked = rng.choice(len(numbers[0]), count, replace=False)
    clean = numbers[0][picked]
    forget, retain = _rows(add_noise(clean, 0.1, rng)), _rows(np.concatenate(numbers))
    data = MitigationData(forget=forget.to(device), retain=retain.to(device), clean_counterparts=_rows(clean).to(device), seed=seed)
    return Case(GPT(GPTConfig(vocab_size=14, n_positions=150), seed=seed).to(device).eval(), data)


def _numbers(k: int, count: int) -> Numbers:
    return sequences("additive", k, np.arange(max(8, count)), 20, 1)


def _rows(numbers_NL: Numbers) -> Rows:
    ids_NT = render(numbers_NL, 150)
    return Rows.of(ids_NT, PROMPT, torch.from_numpy((ids_NT != PAD).sum(1)))
