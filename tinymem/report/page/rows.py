"""Rows behind a page's numbers: the first ones on the page, up to a budget of bytes, the others in files next to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tinymem.report.cells import settings
from tinymem.report.render.html import fill
from tinymem.report.tables.table import anchor
from tinymem.results.read import with_intervals
from tinymem.results.row import MeasuredRow
from tinymem.runtime.files import write_text

BUDGET = 800_000  # bytes of JSON on the page itself
ROWS_PER_FILE = 500
Block = tuple[str, str, str]
"""Title, anchor and text of a row's JSON."""


@dataclass(frozen=True)
class PageRows:
    """The rows of a page, split into those on it and those in files next to it.

    Attributes:
        embedded: rows by source that are on the page.
        in_files: name of the file, relative to the page, and rows by source, of those that are not.
    """

    embedded: dict[str, MeasuredRow]
    in_files: dict[str, dict[str, MeasuredRow]] = field(default_factory=dict)

    @property
    def links(self) -> dict[str, str]:
        """URL of every row's JSON by its source."""
        here = {source: f"#json-{anchor(source)}" for source in self.embedded}
        return here | {source: f"{name}#json-{anchor(source)}" for name, rows in self.in_files.items() for source in rows}

    def write_files(self, folder: Path) -> list[Path]:
        """Write the files of the rows that are not on the page; `folder` is the page's. Returns the paths."""
        for name, rows in self.in_files.items():
            write_text(folder / name, fill("rows.html", blocks=blocks(rows)))
        return [folder / name for name in self.in_files]


def page_rows(known: dict[str, MeasuredRow], first: Iterable[str], folder: str, budget: int = BUDGET) -> PageRows:
    """Split rows between the page and files in `folder` next to it.

    Args:
        known: all rows by source.
        first: sources in order of importance, such as those that tables name; the others follow.
        folder: name for the files' folder, relative to the page.
        budget: bytes of JSON on the page.
    """
    order = dict.fromkeys([*(source for source in first if source in known), *known])
    embedded: dict[str, MeasuredRow] = {}
    used = 0
    for source in order:
        used += len(_json(known[source]).encode())
        if used > budget:
            break
        embedded[source] = known[source]
    rest = [source for source in order if source not in embedded]
    pieces = [rest[i : i + ROWS_PER_FILE] for i in range(0, len(rest), ROWS_PER_FILE)]
    in_files = {f"{folder}/rows-{i:04d}.html": {source: known[source] for source in piece} for i, piece in enumerate(pieces, 1)}
    return PageRows(embedded, in_files)


def blocks(rows: Mapping[str, MeasuredRow]) -> list[Block]:
    """Each row's JSON under the anchor that its numbers link to."""
    return [(_title(row), f"json-{anchor(source)}", _json(row)) for source, row in rows.items()]


def _title(row: MeasuredRow) -> str:
    return " ".join(part for part in (row.model_name, row.method, settings(row)) if part) + f" on {row.artifact}"


def _json(row: MeasuredRow) -> str:
    return json.dumps(with_intervals(row.as_dict()), indent=1, ensure_ascii=False)
