"""The paper's sizes of model, batch and row: what training is timed on."""

from __future__ import annotations

from dataclasses import dataclass

BATCH, TOKENS, WIDTH, HEADS = 128, 150, 128, 4


@dataclass(frozen=True)
class Case:
    """A size of model."""

    name: str
    layers: int
    vocabulary: int

    def step_flops(self, rows: int) -> float:
        """Forward and backward: 6 per weight of a matrix and token, and the attention's two products, not halved for causality."""
        weights = 12 * self.layers * WIDTH**2 + WIDTH * self.vocabulary
        return rows * TOKENS * (6.0 * weights + 12.0 * self.layers * TOKENS * WIDTH)


CASES = (
    Case("math-2", 2, 14),
    Case("math-4", 4, 14),
    Case("math-8", 8, 14),
    Case("math-16", 16, 14),
    Case("language-2", 2, 50257),
    Case("language-4", 4, 50257),
    Case("language-8", 8, 50257),
    Case("language-16", 16, 50257),
)
