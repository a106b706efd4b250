"""Members and non-members for membership inference: rows that differ in nothing but having been trained on.

An attack that tells apart two distributions of rows is no evidence of memorization, so non-members are drawn as the members were; each
artifact kind does that in its own file (`Artifact.members`, `Artifact.non_members`).

Text whose test rows are another split, or the end of the text, differs from its training rows a little by topic: there compare the number
after a mitigation with that of a model that has never seen the rows, not with 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinymem.data.artifact import artifact_of, whole_rows
from tinymem.data.corpus import Corpus
from tinymem.data.planted import Indices, Population


@dataclass(frozen=True)
class Members(Population):
    """Members, with the indices [N] of each among the planted rows."""

    index: Indices


def populations(corpus: Corpus, kind: str) -> tuple[Members, Population]:
    """Members and non-members of one artifact; the latter are empty where the corpus has none."""
    artifact, planted = artifact_of(corpus, kind), corpus.planted[kind]
    index = np.flatnonzero(artifact.members(planted))
    ids = planted.ids[index]
    content = whole_rows(ids, corpus).content if planted.end is None else planted.end[index]
    return Members(ids, content, index), artifact.non_members(corpus)
