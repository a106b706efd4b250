"""Rows that the repository keeps: one small Parquet file, each row as JSON in a column."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tinymem.results.row import MeasuredRow
from tinymem.runtime.files import write_bytes

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
