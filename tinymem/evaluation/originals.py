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
from tinymem.data.planted import Indices
from tinymem.evaluation.forward import TokenQuery
from tinymem.evaluation.probes import Probe, target_ends
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.evaluation import Evaluation


@dataclass(frozen=True)
class Original:
    """One artifact's rows, in the order of its probe."""

    ids: Tensor
    """Token ids [N, T] as planted in the training set."""
    clean_counterparts: Tensor | None
    """The same rows [N, T] without the artifact; None for kinds without such rows (`WITHOUT_COUNTERPART`) and for a user's own rows."""
    clean_end: Tensor | None
    """Token [N] after the target of each clean counterpart, which may end elsewhere than the artifact's; None as above."""
    content: Tensor
    """Length [N] of each row without its padding."""

    def query(self) -> TokenQuery:
        """All tokens of the rows, padding excepted."""
        position = torch.arange(self.ids.shape[1], device=self.ids.device)[None, :]
        return TokenQuery(self.ids, (position >= 1) & (position < self.content[:, None]))


def originals_of_corpus(
    corpus: Corpus, probes: Mapping[str, Probe], evaluation: Evaluation, protocol: Protocol, device: torch.device
) -> dict[str, Original]:
    """The original rows of every artifact that has a probe, on a device."""
    found = {}
    for kind, probe in probes.items():
        planted = corpus.planted[kind]
        ids, clean, clean_end = planted.ids[probe.index], None, None
        if artifact_of(corpus, kind).has_clean_counterpart:
            clean = _tensor(planted.clean[probe.index], device)
            clean_end = _tensor(target_ends(corpus, planted, planted.clean, evaluation, protocol)[probe.index], device)
        found[kind] = Original(_tensor(ids, device), clean, clean_end, content_lengths(corpus, ids, protocol).to(device))
    return found


def content_lengths(corpus: Corpus, ids: Ids, protocol: Protocol) -> Tensor:
    """Length [N] of each row of a corpus without its padding."""
    return torch.from_numpy(corpus.row_ends(ids, protocol))


def _tensor(ids: Ids | Indices, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(device)
