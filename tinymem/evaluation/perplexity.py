"""Perplexity: exp of the token-weighted mean loss in nats (lower is better, at least 1)."""

from __future__ import annotations

import math


def perplexity(total_loss: float, tokens: int) -> float | None:
    """exp(total / tokens); None for no tokens, and where it is no number that JSON could hold (overflow, NaN)."""
    if not tokens:
        return None
    mean = total_loss / tokens
    return math.exp(mean) if mean < 700 else None
