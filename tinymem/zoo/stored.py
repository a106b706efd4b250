"""Rows that the repository keeps: one small Parquet file, each row as JSON in a column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tinymem.results.collect import measured_on, with_windows
from tinymem.results.columns import EXPERIMENT_COLUMNS
from tinymem.results.row import MeasuredRow
from tinymem.runtime.files import content_id, write_bytes

COMPRESSION_LEVEL = 19


def lean(row: MeasuredRow) -> MeasuredRow:
    """The row without what pages do not show and that is many times larger: nested metrics, all options, and where it ran."""
    return replace(row, metrics_before=None, metrics_after=None, edited_by_layer=None, config=None, request=None, host=None, attempts=None)


def store_rows(path: Path, rows: Iterable[MeasuredRow]) -> int:
    """Write the rows that have a result, in the order of model, method and id; returns their number. `stored_rows` reads them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = sorted((row for row in rows if row.is_ok), key=lambda row: (row.protocol or "", row.run or "", row.method, row.source))
    texts = [json.dumps(row.as_dict(), ensure_ascii=False, allow_nan=False) for row in kept]
    table = pa.table({"run_id": [row.id for row in kept], "row": texts})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=COMPRESSION_LEVEL, use_dictionary=False)
    write_bytes(path, sink.getvalue().to_pybytes())
    return len(kept)


def stored_rows(path: Path) -> list[MeasuredRow]:
    """The rows of a file that `store_rows` wrote.

    Raises:
        UserError: a missing or damaged file.
    """
    from tinymem.sweep.estimate import measured_rows

    return measured_rows(path)


def merged(known: Iterable[MeasuredRow], new: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Stored rows with the new ones that have a result.

    Those replace the rows of equal ids and artifacts, and of the same run that was computed otherwise. One without `robustness` does not
    replace one that has it and was computed in the same way.
    """
    stored = list(known)
    completed = with_windows([*stored, *new])
    stored, new = completed[: len(stored)], completed[len(stored) :]
    fuller = {(key, row.computed_in) for row in stored if row.robustness for key in _keys(row)}
    taken = [row for row in new if row.is_ok and (row.robustness or not any((key, row.computed_in) in fuller for key in _keys(row)))]
    replaced = {key for row in taken for key in _keys(row)}
    return [*(row for row in stored if not _keys(row) & replaced), *taken]


def _keys(row: MeasuredRow) -> set[str]:
    return {row.source, _run_of(row)}


def _run_of(row: MeasuredRow) -> str:
    """What was run on which weights, whatever the id says of the way in which it was computed."""
    measured = (row.weights or row.source, *measured_on(row)[1:])
    return content_id([*measured, row.plugin, row.options, *(row[name] for name in EXPERIMENT_COLUMNS)])
