"""Goldfish loss: leave about one token in k out of the loss, the same tokens whenever the same text comes again.

Formula: the target at t is left out if a hash of the `width` tokens before it falls below 1/k.
Source: Hans et al. 2024 (arXiv 2406.10209), section 3. Published code takes the product of the window's ids modulo a table of random
    numbers, and lets the window end with the target itself (`window: with-target`). That product is 0 for any window with id 0 and takes
    few values for 14 tokens, so the hash here is a sum of ids with random 64-bit factors, mixed. The mean is over the remaining tokens.
Cost: one product of [B, T, width] integers a step; no state.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from tinymem.models.gpt2 import GPT
from tinymem.recipe.data import MAXIMUM_SEED
from tinymem.recipe.training import LARGEST
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, TrainingRows, regularizer
from tinymem.training.regularizers._hashing import chance, splitmix64, stream


@regularizer
class GoldfishSection(RegularizerSection):
    """Options of the goldfish loss, which drops about one token in k from the loss (Hans et al. 2024)."""

    kind: Literal["goldfish"] = "goldfish"
    k: int = Field(4, ge=2, description="one token in so many is left out")
    width: int = Field(13, ge=1, le=LARGEST, description="number of tokens that are hashed")
    window: Literal["before", "with-target"] = Field(
        "before", description="tokens that are hashed: those before the target, or (published code) with it"
    )
    seed: int = Field(0, ge=0, le=MAXIMUM_SEED, description="seed of the hash")

    def refusal(self, row_tokens: int) -> str | None:
        """Error message if rows have too few tokens to hash, so that nothing would be dropped; else None."""
        most = row_tokens - (self.window == "before")
        return (
            f"expected goldfish's width of at most {most} in rows of {row_tokens} tokens, got {self.width}" if self.width > most else None
        )

    def make(self, rows: TrainingRows) -> Goldfish:
        return Goldfish(self)


class Goldfish(Regularizer):
    """A regularizer that gives weight 0 to tokens that a hash of their context picks. Shape suffixes: N windows, W tokens of a window."""

    weighs_tokens: ClassVar[bool] = True

    def __init__(self, section: GoldfishSection) -> None:
        super().__init__()
        self.k, self.window, self.leaves_mean = section.k, section.window, True
        self.register_buffer("factors_W", stream(section.seed, section.width) | 1, persistent=False)

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
