"""Options of methods: the base class of every method's config, and the grids that a config declares."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, runtime_checkable

from tinymem.errors import UserError
from tinymem.mitigation.option_ranges import check_least

Grid = dict[str, tuple[float, ...]]
"""Values to try of each option: a sweep runs their product."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Options of a method: derive from it with a frozen dataclass that has a field for each option.

    Attributes:
        grid: values of the paper's experiments, option by option; empty: the defaults alone.
        published_grid: values of the published runs, where they differ from the paper's.
    """

    grid: ClassVar[Grid] = {}
    published_grid: ClassVar[Grid] = {}

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if hasattr(value, "tolist"):  # NumPy's and torch's numbers: rows and ids hold Python's
                object.__setattr__(self, option.name, value := value.tolist())
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"expected a finite number as option '{option.name}', got {value}")
        check_least(self)


@runtime_checkable
class HasEpochs(Protocol):
    """A config with the option `epochs`."""

    @property
    def epochs(self) -> int:
        """Number of passes over the rows to forget."""
