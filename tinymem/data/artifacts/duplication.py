"""Duplication: clean rows, repeated. How often must a model see a row to know it by heart (paper, A.1.2; Carlini et al. 2023)?

Non-members are test rows of the same task: the duplicated rows are a random part of the others.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tinymem.data.artifact import Artifact, artifact, whole_rows
from tinymem.data.corpus import Corpus
from tinymem.data.math.pool import too_few
from tinymem.data.planted import Planted, Population, repeated
from tinymem.data.planting import COPIES, Copies, Pool, copies_of
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.data import MathData


@artifact
class DuplicationArtifact(Artifact):
    """Clean rows, repeated: how often must a model see a row to know it by heart (paper, A.1.2; Carlini et al. 2023)."""

    summary: ClassVar[str] = "clean training rows that are repeated"
    order: ClassVar[int] = 30
    has_clean_counterpart: ClassVar[bool] = False

    kind: Literal["duplication"] = "duplication"
    rows: int = Field(1000, ge=1, description="clean training rows that are repeated")
    copies: Copies = Field((1, 10, 100, 1000), description=COPIES)

    def rows_of_primary(self, free: int, data: MathData, protocol: Protocol) -> int:
        if free <= self.rows:
            raise too_few(self.kind, self.rows, free - 1)
        return self.rows

    def plant(self, pool: Pool) -> Planted:
        rows = pool.draw(self.rows, pool.generator("duplication"), self.kind)
        return repeated(rows, copies_of(self.copies, self.rows))

    def non_members(self, corpus: Corpus) -> Population:
        return whole_rows(corpus.primary_test_rows(), corpus)
