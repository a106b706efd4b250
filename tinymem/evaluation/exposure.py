"""Exposure of canaries: how far a model prefers a planted secret to all others (Carlini et al. 2019, "The Secret Sharer", section 4).

    exposure = log2(number of possible secrets) - log2(rank of the planted one by the model's loss)

0.. about 1 bit is chance; the largest value, log2 of the space, means that the planted secret is the likeliest of all and can be found
by search. Small spaces are ranked in full. Of large ones a random sample is, and the rank is (1 + likelier ones) / (1 + sample) of the
space: then exposure cannot exceed log2(1 + sample), and `exact` is False (the paper's estimate by sampling, its section 4.3).
Two secrets of equal loss share the worse rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tinymem.data.artifact import artifact_of
from tinymem.data.artifacts.canary import CanaryArtifact, canary_encoder, make_canary, nth_secret, random_secrets
from tinymem.data.corpus import Corpus
from tinymem.errors import UserError
from tinymem.evaluation.perplexity import token_losses
from tinymem.models.adapters import logits
from tinymem.runtime.json import JsonObject

DEFAULT_LIMIT = 10_000


@dataclass(frozen=True)
class Exposure:
    """The exposure of one canary among the secrets that it was compared with.

    Attributes:
        exposure: in bits.
        rank: of the planted secret among `ranked`, 1 = likeliest.
        ranked: secrets that were compared, the planted one included.
        space: number of possible secrets.
        exact: whether `ranked` is the whole space.
        copies: times that the canary occurs in a training epoch.
    """

    exposure: float
    rank: int
    ranked: int
    space: int
    exact: bool
    copies: int

    def as_dict(self) -> JsonObject:
        """The fields as a dictionary that JSON can hold."""
        return asdict(self)


def exposure_of_rank(rank: int, ranked: int) -> float:
    """Exposure in bits of rank `rank` among `ranked` secrets, of which the space is the whole or the estimate's source.

    >>> exposure_of_rank(1, 1024)
    10.0
    """
    return math.log2(ranked) - math.log2(rank)


@torch.no_grad()
def exposures(model: nn.Module, corpus: Corpus, *, limit: int = DEFAULT_LIMIT, batch_size: int = 256, seed: int = 0) -> list[Exposure]:
    """Exposure of each canary of a corpus, in its order.

    Args:
        model: any causal language model over the corpus's vocabulary; put in evaluation mode.
        corpus: with a canary artifact.
        limit: spaces of up to so many secrets are ranked in full, of larger ones so many are sampled.
        batch_size: sequences per forward pass.
        seed: of the sample.

    Raises:
        UserError: the corpus has no canaries.
    """
    if "canary" not in corpus.planted:
        raise UserError(f"expected canaries in the corpus, got {list(corpus.planted) or 'no artifacts'}; add `kind: canary` to the recipe")
    artifact = artifact_of(corpus, "canary")
    assert isinstance(artifact, CanaryArtifact)
    encode, template = canary_encoder(corpus)
    planted = corpus.planted["canary"]
    assert planted.end is not None
    model.eval()
    results = []
    for index, (row, start, end) in enumerate(zip(planted.ids, planted.start, planted.end, strict=True)):
        own = row[start:end].tolist()
        others = [make_canary(artifact, template, index, secret, encode) for secret in _secrets(artifact, limit, seed + index)]
        rows = [c.ids[: c.end] for c in others if c.ids[c.start : c.end] != own]
        losses = torch.cat(list(_losses(model, [row[:end].tolist(), *rows], int(start), batch_size)))
        rank = 1 + int((losses[1:] <= losses[0]).sum())
        exact = artifact.space <= limit
        bits = exposure_of_rank(rank, len(losses))
        results.append(Exposure(bits, rank, len(losses), artifact.space, exact, int(planted.copies[index])))
    return results


def _secrets(artifact: CanaryArtifact, limit: int, seed: int) -> list[str]:
    if artifact.space <= limit:
        return [nth_secret(artifact, n) for n in range(artifact.space)]
    return random_secrets(artifact, limit, np.random.default_rng([seed, artifact.length]))


def _losses(model: nn.Module, rows: list[list[int]], start: int, batch_size: int) -> Iterator[Tensor]:
    """Summed loss [n] of each row's tokens from `start` on, in nats."""
    device = next(model.parameters()).device
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        length = max(map(len, batch))
        ids_BT = torch.tensor([row + [0] * (length - len(row)) for row in batch], device=device)
        ends_B1 = torch.tensor([[len(row)] for row in batch], device=device)
        position_T = torch.arange(1, length, device=device)
        skip = max(0, start - 1)  # the first token of a row has no prediction
        scores_BTV = logits(model, ids_BT)[:, skip:-1]
        losses_BT = token_losses(scores_BTV, ids_BT[:, 1 + skip :])
        yield (losses_BT.double() * (position_T[None, skip:] < ends_B1)).sum(1).cpu()
