"""Parquet parts of a sweep's results: numbered files of many runs; the newest part that has a run counts.

Column `row` is the row as JSON, exactly as it was written; the other, flat columns (dictionaries as JSON) are for other tools.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypedDict

from tinymem.errors import UserError
from tinymem.results.row import Status
from tinymem.runtime.files import canonical_json, write_bytes
from tinymem.runtime.json import JsonObject

PARQUET = "parquet"
ALWAYS = ("run_id", "row")  # every part has these; a flat column without values is left out


class PartRow(TypedDict, total=False):
    """Columns of a part that its readers use; a column without values is left out of a part."""

    run_id: str
    row: str
    status: Status
    finished: str | None
    request: str | None


PART = re.compile(r"part-(\d{6})\.parquet")


def parts_of(folder: Path) -> list[Path]:
    """Paths of the Parquet parts, the oldest first."""
    return sorted(path for path in (folder / PARQUET).glob("part-*.parquet") if PART.fullmatch(path.name))


def write_part(folder: Path, runs: dict[str, list[str]]) -> None:
    """Write a new part with the rows, as JSON, of each run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = parts_of(folder)
    number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 1
    rows = [{"run_id": run, "row": text, **_flat(json.loads(text))} for run, texts in runs.items() for text in texts]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(folder / PARQUET / f"part-{number:06d}.parquet", sink.getvalue().to_pybytes())


def _flat(row: JsonObject) -> JsonObject:
    """The row's numbers and words; dictionaries as JSON."""
    flat = {name: canonical_json(value) if isinstance(value, dict | list) else value for name, value in row.items()}
    return {name: value for name, value in flat.items() if value is not None and name not in ("row", "run_id")}


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array(values if len(kinds) <= 1 else [None if v is None else str(v) for v in values])


def texts_of(path: Path) -> dict[str, list[str]] | None:
    """Rows as JSON of each run in a part; None if the part does not exist (any more)."""
    rows = read_part(path, ["run_id", "row"])
    if rows is None:
        return None
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(row["row"])
    return found


def row_count(path: Path) -> int:
    """Number of rows in a Parquet part, from its metadata."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def read_part(path: Path, columns: list[str]) -> list[PartRow] | None:
    """Some columns of a part, row by row; None if the part does not exist (any more).

    Raises:
        UserError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = [column for column in columns if column in file.schema_arrow.names]
            rows: list[PartRow] = file.read(columns=there).to_pylist()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"expected Parquet in {path}, got something else ({reason}); restore the file or delete it") from None
    if missing := [column for column in columns if column in ALWAYS and column not in there]:
        raise UserError(f"expected column {missing[0]} in {path}, found none; is it a part of a sweep? Restore the file or delete it")
    return rows
