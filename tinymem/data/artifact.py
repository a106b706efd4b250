"""The registry of artifact kinds: one file per kind, in tinymem/data/artifacts or a plugin.

    @artifact
    class Reversed(Artifact):
        \"\"\"Rows that are planted backwards.\"\"\"

        summary: ClassVar[str] = "rows in reverse, with their clean counterparts"
        kind: Literal["reversed"] = "reversed"
        rows: int = Field(100, ge=1, description="clean training rows that a reversed version replaces")
        copies: Copies = Field(1, description=COPIES)

        def plant(self, pool: Pool) -> Planted:
            clean = pool.draw(self.rows, pool.generator(self.kind), self.kind)
            copies = copies_of(self.copies, self.rows)
            return Planted(clean[:, ::-1].copy(), clean, np.zeros_like(copies), copies)

The fields are the keys of the kind in a recipe's `artifacts`. All else follows from the planted rows: the probe, held-out rows (0 copies),
forget and holdout rows, membership, the card, and the columns of results and reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, TypeVar

import numpy as np

from tinymem.data.corpus import Corpus
from tinymem.data.math.pool import AllTasks, MathPool, ReferenceSplit, Task
from tinymem.data.math.sequences import Ids
from tinymem.data.planted import Claim, Flags, Planted, Population
from tinymem.data.planting import Pool
from tinymem.data.text.pool import TextPool
from tinymem.data.text.row_sets import RowSets, Text
from tinymem.errors import UserError, described
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.data import MathData, WikiData
from tinymem.recipe.kinds import ArtifactSection, register_kind

LAST = 100


class Artifact(ArtifactSection):
    """A kind of artifact with its options; override `plant`, or `plant_math` and `plant_text` where they differ."""

    summary: ClassVar[str] = ""
    """A phrase about the rows, for the dataset card."""
    order: ClassVar[int] = LAST
    """Position in the order of planting, smallest first; artifacts of equal order are planted in the recipe's."""
    has_clean_counterpart: ClassVar[bool] = True
    """True if each row has a clean version; then only rows whose target differs from it are scored."""
    has_reference: ClassVar[bool] = False
    """True if the published code plants it: `reference_math` and `reference_text` are defined."""
    replaces_rows: ClassVar[bool] = True
    """True if its rows are made of clean training rows, which are then no more among the others."""
    shortens_prompt: ClassVar[bool] = True
    """True if prompts that the artifact sets itself (`Planted.start`) may lose tokens in the test of robustness."""

    def rows_of_primary(self, free: int, data: MathData, protocol: Protocol) -> int:
        """Clean training rows of a math corpus's primary task that it takes for sure, before any is made.

        Raises:
            UserError: more than there are; `free` is the most that the artifacts before it leave.
        """
        return 0

    def claim_math(self, rows: AllTasks) -> Claim | None:
        """All sequences that already contain the artifact, before the test rows are split off; None for an artifact that makes its own."""
        return None

    def claim_text(self, pool: TextPool) -> Claim | None:
        """All rows of a text that already contain the artifact; takes them out of `pool.free`."""
        return None

    def plant(self, pool: Pool) -> Planted:
        """Plant the artifact in rows of the pool; rows with 0 copies are held out of training.

        Raises:
            UserError: too few rows, or a kind of corpus that the artifact does not support.
        """
        corpus = "text" if isinstance(pool, TextPool) else "math"
        raise UserError(f"expected an artifact for {corpus}, got '{self.kind}', which has none; try another data.kind or artifact")

    def plant_math(self, pool: MathPool) -> Planted:
        """Plant the artifact in rows of a math corpus, under protocol paper."""
        return self.plant(pool)

    def plant_text(self, pool: TextPool) -> Planted:
        """Plant the artifact in rows of a text corpus, under protocol paper."""
        return self.plant(pool)

    def reference_math(self, split: ReferenceSplit) -> tuple[Task, Task, Planted]:
        """The published code's training rows, test rows and planted rows."""
        raise NotImplementedError

    def reference_text(self, text: Text, data: WikiData, seed: int) -> RowSets:
        """The published code's rows of a text."""
        raise NotImplementedError

    def members(self, planted: Planted) -> Flags:
        """Mask [n] of the members in membership inference: by default the trained rows."""
        return planted.trained

    def non_members(self, corpus: Corpus) -> Population:
        """Rows from the members' distribution that were not trained on: by default the held-out ones. Empty where there are none."""
        planted = corpus.planted[self.kind]
        return whole_rows(planted.ids[~planted.trained], corpus)

    def recognizes(self, rows: Ids, planted: Planted) -> Flags:
        """Mask [n] of the rows [n, T] that look like the artifact's, and so are no non-members of another."""
        return np.zeros(len(rows), dtype=bool)

    def protected(self, planted: Planted) -> int:
        """Tokens at the end of a prompt that must stay, such as a trigger."""
        return 0

    def counts(self, planted: Planted) -> dict[str, int]:
        """Further counts by name, for `tinymem data inspect`."""
        return {}


A = TypeVar("A", bound=Artifact)


def artifact(kind: type[A]) -> type[A]:
    """Register an artifact kind, under the default of its field `kind`.

    Raises:
        UserError: it has no such default, or another kind has the name.
    """
    return register_kind(kind, "artifact")


def artifacts_of(sections: Iterable[ArtifactSection]) -> list[Artifact]:
    """The artifacts of a recipe or a corpus, in the order in which they are planted."""
    return sorted((_as_artifact(section) for section in sections), key=lambda found: found.order)


def artifact_of(corpus: Corpus, kind: str) -> Artifact:
    """The options of one of the corpus's artifacts."""
    return next(_as_artifact(section) for section in corpus.spec.artifacts if section.kind == kind)


def reference_artifact(sections: Iterable[ArtifactSection]) -> Artifact | None:
    """The one artifact of a recipe that the published code plants, or None.

    Raises:
        UserError: several, or one that it does not know.
    """
    found = artifacts_of(sections)
    if len(found) > 1 or not all(artifact.has_reference for artifact in found):
        kinds = [section.kind for section in sections]
        raise UserError(f"protocol reference plants noise or a backdoor, as the published code does, got {kinds}; try protocol: paper")
    return found[0] if found else None


def planted_by(artifact: Artifact, plant: Callable[[], Planted], row_tokens: int) -> Planted:
    """The rows that an artifact plants, checked.

    Raises:
        UserError: it failed, or its rows do not fit.
    """
    try:
        planted = plant()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the artifact '{artifact.kind}' failed: {described(error)}") from error
    if not isinstance(planted, Planted):
        raise UserError(f"expected the artifact '{artifact.kind}' to return Planted from `plant`, got {type(planted).__name__}; return one")
    planted.check(artifact.kind, row_tokens)
    return planted


def whole_rows(rows: Ids, corpus: Corpus) -> Population:
    """Rows [n, T] of which all tokens but padding count."""
    return Population(rows, corpus.row_ends(rows, corpus.spec.protocol))


def _as_artifact(section: ArtifactSection) -> Artifact:
    if not isinstance(section, Artifact):
        raise UserError(f"expected '{section.kind}' to be an Artifact, got {type(section).__name__}; try tinymem.data.artifact")
    return section
