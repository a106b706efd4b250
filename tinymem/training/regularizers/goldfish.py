"""Goldfish loss: leave about one token in k out of the loss, the same tokens whenever the same text comes again.

Formula: the target at t is left out if a hash of the `width` tokens before it falls below 1/k.
Source: Hans et al. 2024 (arXiv 2406.10209), section 3. Published code takes the product of the window's ids modulo a table of random
    numbers, and lets the window end with the target itself (`window: with-target`). That product is 0 for any window with id 0 and takes
    few values for 14 tokens, so the hash here is a sum of ids with random 64-bit factors, mixed. The mean is over the remaining tokens.
Cost: one product of [B, T, width] integers a step; no state.
Options: k, width (tokens hashed), window (`before` the target or `with-target`), seed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tinymem.models.gpt2 import GPT
from tinymem.training.regularizers.base import Regularizer
from tinymem.training.regularizers.hashing import chance, splitmix64, stream


class Goldfish(Regularizer):
    """Zero weight for tokens that a hash of their context picks. Shape suffixes: N windows, W tokens of a window."""

    weighs_tokens: ClassVar[bool] = True

    def __init__(self, *, k: int = 4, width: int = 13, window: Literal["before", "with-target"] = "before", seed: int = 0) -> None:
        super().__init__()
        self.k, self.window, self.leaves_mean = k, window, True
        self.register_buffer("factors_W", stream(seed, width) | 1, persistent=False)

    def attach(self, model: GPT) -> None:
        self.to(next(model.parameters()).device)

    @torch.no_grad()
    def token_weights(self, ids_BT: Tensor, losses_BP: Tensor) -> Tensor:
        """Weights [B, P]: 0 for dropped tokens; tokens with too few tokens before them have 1."""
        factors_W = self.get_buffer("factors_W")
        history_BT = ids_BT[:, :-1] if self.window == "before" else ids_BT
        kept_BP = torch.ones_like(losses_BP)
        if history_BT.shape[1] >= len(factors_W):
            windows_BNW = history_BT.unfold(1, len(factors_W), 1)
            left_out_BN = chance(splitmix64(((windows_BNW + 1) * factors_W).sum(2)), 1 / self.k)[:, -kept_BP.shape[1] :]
            kept_BP[:, kept_BP.shape[1] - left_out_BN.shape[1] :] = (~left_out_BN).to(kept_BP.dtype)
        return kept_BP
