"""The registry of regularizers: one file per kind, in tinymem/training/regularizers or a plugin.

    @regularizer
    class WeightNormSection(RegularizerSection):
        \"\"\"Penalty on the squared norm of all weights.\"\"\"

        kind: Literal["weight-norm"] = "weight-norm"
        strength: float = Field(0.01, ge=0, description="factor of half the squared norm")

        def make(self, rows: TrainingRows) -> Regularizer:
            return WeightNorm(self)

    class WeightNorm(Regularizer):
        def __init__(self, section: WeightNormSection) -> None: ...

The section's fields are the keys of the kind in a recipe's `training.regularizers`; `Regularizer` has the hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tinymem.errors import UserError
from tinymem.recipe import kinds
from tinymem.training.regularizer import Regularizer, Regularizers


@dataclass(frozen=True)
class TrainingRows:
    """Counts of the distinct training rows; those of the artifacts come last.

    Attributes:
        clean: rows that no artifact planted.
        distinct: all of them; None where nobody knows.
    """

    clean: int = 0
    distinct: int | None = None


class RegularizerSection(kinds.RegularizerSection):
    """The options of a kind of regularizer, and how it is made."""

    def make(self, rows: TrainingRows) -> Regularizer:
        """The regularizer with these options.

        Raises:
            UserError: options that do not suit the rows.
        """
        raise UserError(f"expected `make` in the section of regularizer '{self.kind}', found none; return the Regularizer from it")


S = TypeVar("S", bound=RegularizerSection)


def regularizer(section: type[S]) -> type[S]:
    """Register a kind of regularizer, under the default of its field `kind`.

    Raises:
        UserError: it has no such default, or another kind has the name.
    """
    return kinds.register_kind(section, "regularizer")


def make_regularizers(sections: Sequence[kinds.RegularizerSection], rows: TrainingRows | None = None) -> Regularizers:
    """The regularizers of a recipe's sections.

    Raises:
        UserError: options that do not suit the rows.
    """
    return Regularizers((section.kind, _made(section, rows or TrainingRows())) for section in sections)


def _made(section: kinds.RegularizerSection, rows: TrainingRows) -> Regularizer:
    if not isinstance(section, RegularizerSection):
        raise UserError(f"expected '{section.kind}' to have `make`, got {type(section).__name__}; try tinymem.training.regularizer")
    made = section.make(rows)
    if not isinstance(made, Regularizer):
        raise UserError(f"expected `make` of regularizer '{section.kind}' to return a Regularizer, got {type(made).__name__}; return one")
    return made
