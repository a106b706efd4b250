"""The scored rows of each artifact as they were in training, with their clean counterparts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinymem.data.artifact import artifact_of
from tinymem.data.corpus import Corpus
from tinymem.data.math.sequences import Ids
from tinymem.data.planted import lengths_without_padding
from tinymem.evaluation.forward import TokenQuery
from tinymem.evaluation.probes import Probe


@dataclass(frozen=True)
class Original:
    """One artifact's rows, in the order of its probe."""

    ids: Tensor
    """Token ids [N, T] as planted in the training set."""
    clean_counterparts: Tensor | None
    """The same rows [N, T] without the artifact; None for kinds without such rows (`WITHOUT_COUNTERPART`) and for a user's own rows."""
    content: Tensor
    """Length [N] of each row without its padding."""

    def query(self) -> TokenQuery:
        """All tokens of the rows, padding excepted."""
        position = torch.arange(self.ids.shape[1], device=self.ids.device)[None, :]
        return TokenQuery(self.ids, (position >= 1) & (position < self.content[:, None]))


def originals_of_corpus(corpus: Corpus, probes: Mapping[str, Probe], device: torch.device) -> dict[str, Original]:
    """The original rows of every artifact that has a probe, on a device."""
    found = {}
    for kind, probe in probes.items():
        planted = corpus.planted[kind]
        ids, has_counterparts = planted.ids[probe.index], artifact_of(corpus, kind).has_clean_counterpart
        counterparts = _tensor(planted.clean[probe.index], device) if has_counterparts else None
        found[kind] = Original(_tensor(ids, device), counterparts, content_lengths(ids, corpus.pad).to(device))
    return found


def content_lengths(ids: Ids, pad: int) -> Tensor:
    """Length [N] of each row without its padding."""
    return torch.from_numpy(lengths_without_padding(ids, pad))


def _tensor(ids: Ids, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(device)
