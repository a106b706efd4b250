"""The paper's sizes of model, batch and row, on which training is timed."""

from __future__ import annotations

from dataclasses import dataclass

from tinymem.models.gpt2 import GPTConfig
from tinymem.recipe.sizes import GPT2_VOCABULARY, MATH_VOCABULARY

BATCH, TOKENS, WIDTH, HEADS = 128, 150, 128, 4


@dataclass(frozen=True)
class Case:
    """A size of model, by its layers and vocabulary."""

    name: str
    layers: int
    vocabulary: int

    def config(self) -> GPTConfig:
        """Sizes of the model."""
        return GPTConfig(vocab_size=self.vocabulary, n_positions=TOKENS, n_layer=self.layers, n_embd=WIDTH, n_head=HEADS)

    def step_flops(self, rows: int) -> float:
        """Forward and backward: 6 per weight of a matrix and token, and the attention's two products, not halved for causality."""
        weights = 12 * self.layers * WIDTH**2 + WIDTH * self.vocabulary
        return rows * TOKENS * (6.0 * weights + 12.0 * self.layers * TOKENS * WIDTH)


CASES = (
    Case("math-2", 2, MATH_VOCABULARY),
    Case("math-4", 4, MATH_VOCABULARY),
    Case("math-8", 8, MATH_VOCABULARY),
    Case("math-16", 16, MATH_VOCABULARY),
    Case("language-2", 2, GPT2_VOCABULARY),
    Case("language-4", 4, GPT2_VOCABULARY),
    Case("language-8", 8, GPT2_VOCABULARY),
    Case("language-16", 16, GPT2_VOCABULARY),
)
