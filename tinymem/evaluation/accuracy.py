"""Token accuracy: the share of scored tokens that are the arg-max, given the true tokens before them.

Protocol `paper`: from the end of the first number to EOS, no padding. Protocol `reference`, and text: all positions after the first,
padding included. The ceiling is the share of scored tokens that the prefix determines; a model may pass it by good guesses.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import Ids, first_number_end
from tinymem.recipe.corpus_spec import Protocol
from tinymem.results.share import Share


def scored_tokens(ids_NT: Ids, pad: int, protocol: Protocol, *, text: bool = False) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Tokens [N, T] that accuracy and perplexity are taken over."""
    position = np.arange(ids_NT.shape[1])[None, :]
    if protocol == "reference" or text:
        return np.broadcast_to(position >= 1, ids_NT.shape)
    return (position >= first_number_end(ids_NT)[:, None]) & (ids_NT != pad)


def accuracy_ceiling(corpus: Corpus, protocol: Protocol) -> Share:
    """Share of the scored test tokens that the tokens before them determine."""
    determined = scored = 0
    for name, ids in corpus.tests.items():
        mask = scored_tokens(ids, corpus.pad, protocol)
        determined += int((corpus.determined[name] & mask).sum())
        scored += int(mask.sum())
    return Share(determined, scored)


def as_mask(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], device: torch.device) -> Tensor:
    """A boolean NumPy mask as a tensor of the same shape on `device`."""
    return torch.from_numpy(np.ascontiguousarray(flags)).to(device)
