"""Sizes of the kernels' tiles: the fastest on an H200 for the whole step of the 4-layer math model.

Each was chosen on the whole step, not alone: these kernels wait for memory most of the time, and what fills the waits of others counts.
"""

from __future__ import annotations

from typing import NamedTuple

SMALL_VOCABULARY = 16
"""Words of a head that fits the last kernel's tile."""


class TokenTile(NamedTuple):
    """A kernel over tiles of tokens: tokens, neurons and columns of a projection at a time, warps, and stages of its loops' loads."""

    tokens: int = 64
    neurons: int = 64
    columns: int = 64
    warps: int = 4
    stages: int = 3


class SumTile(NamedTuple):
    """A sum over tokens: rows of the result and tokens at a time, warps, stages, and pieces that the tokens are cut into."""

    rows: int = 64
    tokens: int = 64
    warps: int = 4
    stages: int = 4
    pieces: int = 32


class Tiles(NamedTuple):
    """Tiles of all kernels of a step.

    Attributes:
        forward, backward, first: of the token kernels; `first` goes back to the embeddings, its tokens are rows at one position.
        attention_weights, block_weights: of the matrices' gradients.
        attention: tokens of a tile, warps.
        fold: rows of a matrix.
        parts: parts of a batch that run side by side.
        descriptors: whether weights are loaded by the card's copy engine (TMA), which H100s and later ones have.
        park: whether the residual stream's gradient waits in memory while the neurons are gone through.
    """

    forward: TokenTile = TokenTile(neurons=32)
    backward: TokenTile = TokenTile()
    first: TokenTile = TokenTile(stages=2)
    attention_weights: SumTile = SumTile()
    block_weights: SumTile = SumTile(stages=3, pieces=24)
    attention: tuple[int, int] = (64, 4)
    fold: int = 64
    parts: int = 4
    descriptors: bool = False
    park: bool = True
