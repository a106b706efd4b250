"""`tinymem check`: comparison of a run's rows with stored ones, to verify a reproduction.

Rows are matched by model, seed, protocol, method, options and artifact, never by ids, which change with a recipe's name or the code. What
depends on the machine (seconds, memory, device, versions) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinymem.errors import UserError
from tinymem.report.tolerance import Rules, Tolerance, parse_tolerance, tolerance_of
from tinymem.results.columns import MATCH_COLUMNS, TIE_COLUMNS
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow
from tinymem.runtime.files import canonical_json, read_json, write_json
from tinymem.runtime.json import Json, JsonObject

FORMAT = 1
AGAIN = "`tinymem check RUN --write FILE` writes them"
COMPARED = (
    "status", "rows_*", "memorized_*", "forget_memorized_*", "holdout_memorized_*", "performance_*", "perplexity_*", "unit",
    "edited_parameters", "edit_norm", "edited_by_layer", "metrics_before", "metrics_after", "robustness",
)  # fmt: skip
COUNTS = ("count", "rows", "tokens", "members", "non-members")  # of nested columns: compared through their shares
ABSENT = "absent"
STORED = ("kind", *MATCH_COLUMNS, *TIE_COLUMNS)


@dataclass(frozen=True)
class StoredRow:
    """A stored row, with the columns that the file holds: others are not compared."""

    row: MeasuredRow
    values: JsonObject


@dataclass(frozen=True)
class Difference:
    """One value that differs from the stored one by more than its tolerance."""

    row: MeasuredRow
    column: str
    stored: Json
    found: Json
    tolerance: Tolerance

    @property
    def label(self) -> str:
        """Method with its options, `greedy(ratio=0.01)` for instance."""
        options = ", ".join(f"{k}={v}" for k, v in self.row.options.items())
        return f"{self.row.method}({options})" if options else self.row.method


@dataclass(frozen=True)
class Comparison:
    """Result of a check: numbers of rows and values compared, and the differences."""

    rows: int
    values: int
    differences: list[Difference]
    extra: int
    """Number of the run's rows without a stored counterpart."""
    columns: frozenset[str] = frozenset()
    """Columns that were compared, nested ones under a.b.c."""


def compare(stored: list[StoredRow], found: list[MeasuredRow], rules: Rules = ()) -> Comparison:
    """Compare every stored value with the run's.

    Raises:
        UserError: several rows with the same matching columns.
    """
    key = _key([s.row for s in stored], found)
    by_key = {_value(row, key): row for row in found}
    differences, values = [], 0
    for s in stored:
        other = by_key.get(_value(s.row, key))
        if other is None:
            differences.append(Difference(s.row, "row", "stored", ABSENT, Tolerance(0)))
            continue
        there = columns(other.as_dict())
        for column, value in columns(s.values).items():
            values += 1
            tolerance = tolerance_of(column, rules)
            if column not in there or not tolerance.allows(value, there[column]):
                differences.append(Difference(s.row, column, value, there.get(column, ABSENT), tolerance))
    known = {_value(s.row, key) for s in stored}
    compared = frozenset(column for s in stored for column in columns(s.values))
    return Comparison(len(stored), values, differences, sum(_value(row, key) not in known for row in found), compared)


def columns(values: JsonObject) -> JsonObject:
    """The compared values of a row, nested ones under a.b.c."""
    found: JsonObject = {}
    for name, value in values.items():
        if _compared(name):
            found |= dict(_flat(name, value))
    return found


def write_golden(path: Path, rows: Iterable[MeasuredRow]) -> int:
    """Store the compared and the matching columns of some rows; returns the number of rows."""
    kept = [{name: v for name, v in row.as_dict().items() if name in STORED or _compared(name)} for row in rows]
    write_json(path, {"format": FORMAT, "tolerances": {}, "rows": kept})
    return len(kept)


def read_golden(path: Path) -> tuple[list[StoredRow], Rules]:
    """Stored rows of a file, and its tolerances.

    Raises:
        UserError: no such file, or another format.
    """
    content = read_json(path, "file of stored rows")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("rows"), list):
        raise UserError(f"expected stored rows of format {FORMAT} in {path}; {AGAIN}")
    if not isinstance(content.get("tolerances") or {}, dict):
        raise UserError(f"expected tolerances as {{column: amount}} in {path}, got {str(content['tolerances'])[:60]}")
    rules = tuple((pattern, parse_tolerance(str(amount), str(path))) for pattern, amount in (content.get("tolerances") or {}).items())
    return [StoredRow(read_measured(values, str(path), AGAIN), values) for values in content["rows"]], rules


def _compared(name: str) -> bool:
    if "memorized_count_" in name or "_prompt_count_" in name or name.startswith("memorized_by_copies_"):  # compared through the shares
        return False
    return any(name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in COMPARED)


def _flat(name: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in COUNTS:
                yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flat(f"{name}.{place}", inner)
    else:
        yield name, value


def _key(stored: list[MeasuredRow], found: list[MeasuredRow]) -> tuple[str, ...]:
    """The fewest matching columns by which all rows differ."""
    for more in range(len(TIE_COLUMNS) + 1):
        key = (*MATCH_COLUMNS, *TIE_COLUMNS[:more])
        if all(len({_value(row, key) for row in rows}) == len(rows) for rows in (stored, found)):
            return key
    raise UserError("expected rows that differ in method, options, artifact or model, got the same one twice; check one folder at a time")


def _value(row: MeasuredRow, key: tuple[str, ...]) -> str:
    return canonical_json([row[name] for name in key])
