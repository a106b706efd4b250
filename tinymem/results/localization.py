"""Rows of localization benchmarks in a folder: one file a scorer and ratio, written whole, under `localization/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinymem.errors import UserError
from tinymem.results.read import read_row
from tinymem.results.row import LocalizationRow
from tinymem.results.store import AGAIN, values_of, write_values

FOLDER = "localization"
MODELS = "localized-models.json"
"""File of a sweep with the names of its trained models, of those that its benchmark of localization has finished, and why others failed."""


def rows_file(folder: Path, row_id: str) -> Path:
    """Path of the file that holds the rows of one scorer at one ratio."""
    return folder / FOLDER / f"{row_id}.json"


def write_localization(folder: Path, row_id: str, rows: Sequence[LocalizationRow]) -> None:
    """Write the rows of one scorer at one ratio atomically."""
    path = rows_file(folder, row_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_values(path, rows)


def read_localization(folder: Path) -> list[LocalizationRow]:
    """All rows of a folder, file by file; none where it has no benchmark's.

    Raises:
        UserError: a damaged file.
    """
    return [row for path in sorted((folder / FOLDER).glob("*.json")) for row in read_rows_of(path)]


def read_rows_of(path: Path) -> list[LocalizationRow]:
    """Rows of one file of a folder's benchmarks.

    Raises:
        UserError: a damaged file.
    """
    rows = [read_row(value, str(path), AGAIN) for value in values_of(path) or ()]
    found = [row for row in rows if isinstance(row, LocalizationRow)]
    if len(found) != len(rows):
        raise UserError(f"expected rows of kind localization in {path}, got others; {AGAIN}")
    return found
