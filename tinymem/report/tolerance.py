"""Tolerances within which a number counts as reproduced."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeGuard

from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.json import Json

Rules = tuple[tuple[str, "Tolerance"], ...]


@dataclass(frozen=True)
class Tolerance:
    """A permitted difference: `0.05` absolute, `2%` relative to the stored number."""

    amount: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"

    def allows(self, stored: Json, found: Json) -> bool:
        """Whether a found value is within the tolerance; values other than numbers must be equal."""
        if not (_is_number(stored) and _is_number(found)):
            return stored == found
        return abs(found - stored) <= self.amount * (abs(stored) if self.relative else 1) + 1e-12


# Patterns of columns, nested ones written a.b.c; the last that fits holds. Training and editing differ a little between machines and
# versions: a share of rows moves by several points where accuracy moves by a tenth of one.
DEFAULTS: Rules = (
    ("*", Tolerance(0.0)),
    ("*memorized*", Tolerance(0.05)),
    ("performance_*", Tolerance(0.005)),
    ("perplexity_*", Tolerance(0.02, relative=True)),
    ("edit_norm", Tolerance(0.05, relative=True)),
    ("edited_parameters", Tolerance(0.01, relative=True)),
    ("edited_by_layer*", Tolerance(0.05, relative=True)),
    ("rows_forget", Tolerance(0.1, relative=True)),
    ("rows_holdout", Tolerance(0.1, relative=True)),
    ("metrics_*", Tolerance(0.05)),
    ("metrics_*.accuracy.*", Tolerance(0.005)),
    ("metrics_*.perplexity*", Tolerance(0.02, relative=True)),
    ("metrics_*.exposure.*", Tolerance(1.0)),
    ("robustness.*", Tolerance(0.1)),
)


def parse_rules(texts: Iterable[str]) -> Rules:
    """Rules such as `memorized_*=0.1` or `perplexity_*=5%`.

    Raises:
        UserError: something else.
    """
    rules = []
    for text in texts:
        pattern, separator, amount = text.rpartition("=")
        if not separator or not pattern:
            raise UserError(f"expected a tolerance such as 'memorized_*=0.1' or 'perplexity_*=5%', got '{text}'")
        rules.append((pattern, parse_tolerance(amount, text)))
    return tuple(rules)


def refuse_unused(rules: Rules, columns: Collection[str]) -> None:
    """Raise UserError if a rule fits no column that is compared."""
    for pattern, _ in rules:
        if not any(fnmatchcase(column, pattern) for column in columns):
            raise UserError(f"expected a tolerance of a column that is compared, got '{pattern}'; {did_you_mean(pattern, columns)}")


def parse_tolerance(text: str, where: str) -> Tolerance:
    """Parse a tolerance such as `0.05` or `2%`.

    Raises:
        UserError: any other text; `where`, its origin, is part of the message.
    """
    found = re.fullmatch(r"\s*(\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(%?)\s*", text)
    if not found:
        raise UserError(f"expected a tolerance such as 0.05 or 2%, got '{text}' in '{where}'")
    return Tolerance(float(found[1]) / (100 if found[2] else 1), bool(found[2]))


def tolerance_of(column: str, rules: Rules) -> Tolerance:
    """Tolerance of a column, by the last rule that fits it."""
    return next(tolerance for pattern, tolerance in reversed((*DEFAULTS, *rules)) if fnmatchcase(column, pattern))


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
