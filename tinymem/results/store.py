"""Results of a sweep: one file a run, named by content id and written whole or not at all, compacted to Parquet in passing.

    <sweep>/
      sweep.yaml                  the resolved recipe
      results/<id>.json           rows of a run: the truth, until it is in Parquet
      compacting/<id>.json        the same, on the way to Parquet
      parquet/part-000007.parquet rows of many runs: `row` is the row as JSON, exactly; the flat columns are for other tools
      failures.jsonl              failed runs with their tracebacks, rewritten from the rows
      planned.json                number of the runs that were planned last, on trained models or not

A run's rows are those of its file in results/, else of its file in compacting/, else of the newest Parquet part that has its id. Compaction
moves files to compacting/, writes a part, then removes them; killed anywhere, a run may be in two of these places, and counts once. Readers
and writers wait for nobody: a reader looks in the order in which rows move, so it cannot miss them, and a run that is done again while its
old rows are compacted writes a new file in results/. Only one process compacts at a time (`claims.COMPACTION`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymem.errors import UserError
from tinymem.results.nested import RequestColumn
from tinymem.results.parquet import PARQUET, PartRow, parts_of, read_part, row_count, texts_of, write_part
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow, ResultRow, Status
from tinymem.runtime.files import strict_json, write_text
from tinymem.runtime.json import Json

RECIPE, RESULTS, STAGED, FAILURES, PLANNED = "sweep.yaml", "results", "compacting", "failures.jsonl", "planned.json"
SMALL_ROWS, SMALL_PARTS = 1000, 32
"""More than `SMALL_PARTS` parts of fewer than `SMALL_ROWS` rows are merged: short sweeps leave few files, and large parts stay."""
OLD_SECONDS = 3600.0
ROW_BYTES = 25_000
"""Bytes of a row in a run's file, at most."""
FAILED = ("failed", "timeout")
AGAIN = "delete the file, and the command that made it makes it again"
FAILURE_COLUMNS = (
    *("id", "run", "model_name", "epoch", "seed", "method", "options"),
    *("status", "message", "attempts", "finished", "traceback"),
)


@dataclass(frozen=True)
class Known:
    """The index's entry of a run.

    Attributes:
        status: ok, refused, failed or timeout.
        finished: time at which its rows were written, which distinguishes attempts.
        request: the measurements requested for its rows.
    """

    status: Status
    finished: str | None
    request: RequestColumn | None = None

    @property
    def failed(self) -> bool:
        """Whether `--retry-failed` repeats the run."""
        return self.status in FAILED


def read_rows(folder: Path | str) -> list[MeasuredRow]:
    """All rows of a sweep's folder, or of a run's folder, without duplicates, in the order of their ids.

    Raises:
        UserError: no such folder, or a damaged file in it.
    """
    folder = Path(folder)
    if not (folder / RESULTS).is_dir() and not (folder / PARQUET).is_dir():
        if (folder / RECIPE).is_file():
            raise UserError(f"expected results of the sweep in {folder}, found none yet; start it again: `tinymem sweep` goes on there")
        raise UserError(f"expected a folder with results/ or parquet/ at {folder}, found none; sweeps lie under sweeps/, runs under runs/")
    found = dict(read_runs(folder))
    return [row for run in sorted(found) for row in found[run]]


def run_file(folder: Path, run: str) -> Path:
    """Path of the JSON file of a run's rows."""
    return folder / RESULTS / f"{run}.json"


def write_run(folder: Path, run: str, rows: Sequence[MeasuredRow]) -> None:
    """Write the rows of a run atomically."""
    write_values(run_file(folder, run), rows)


def write_values(path: Path, rows: Sequence[ResultRow]) -> None:
    """Write result rows of any kind as one JSON file, atomically."""
    write_text(path, json.dumps([row.as_dict() for row in rows], ensure_ascii=False, allow_nan=False) + "\n")


def read_run(path: Path) -> list[MeasuredRow] | None:
    """A run's rows from its JSON file; None if that does not exist (any more).

    Raises:
        UserError: the file is damaged.
    """
    values = values_of(path)
    return None if values is None else [read_measured(value, str(path), AGAIN) for value in values]


def values_of(path: Path) -> list[Json] | None:
    """The list in a JSON file of result rows, whose values are not checked; None if there is no such file (any more).

    Raises:
        UserError: the file is damaged.
    """
    try:
        values = strict_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"expected JSON in {path}, got something else ({error}); {AGAIN}") from None
    if not isinstance(values, list):
        raise UserError(f"expected a list of result rows in {path}, got {type(values).__name__}; {AGAIN}")
    return values


class Index:
    """Ids and statuses of all runs that have rows; each call reads only the new files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[str, dict[str, Known]] = {}
        self._compacted: dict[str, Known] = {}

    def find(self, run: str) -> Known | None:
        """A run's status now, or None if it has no rows."""
        for place in (RESULTS, STAGED):
            if rows := read_run(self.folder / place / f"{run}.json"):
                return _known(rows)
        return self.compacted().get(run)

    def all(self) -> dict[str, Known]:
        """Status of every run that has rows."""
        loose = {run: _known(rows) for run, rows in _loose(self.folder).items()}
        return {**self.compacted(), **loose}

    def compacted(self) -> dict[str, Known]:
        """Entries of all runs that are in Parquet, by id."""
        while (names := [path.name for path in parts_of(self.folder)]) != list(self._parts):
            read = {name: self._parts.get(name) or _statuses(self.folder / PARQUET / name) for name in names}
            if None in read.values():
                continue  # a part was merged away while we read: look again
            self._parts = {name: statuses for name, statuses in read.items() if statuses is not None}
            self._compacted = {run: known for statuses in self._parts.values() for run, known in statuses.items()}
        return self._compacted


def compact(folder: Path) -> int:
    """Move all JSON files into a Parquet part; returns their number. The caller must ensure that no other process does the same."""
    staged = folder / STAGED
    staged.mkdir(exist_ok=True)
    for path in (folder / RESULTS).glob("*.json"):
        os.replace(path, staged / path.name)
    files = sorted(staged.glob("*.json"))
    if files:
        runs = {path.stem: read_run(path) or [] for path in files}
        write_part(folder, {run: [json.dumps(row.as_dict(), ensure_ascii=False) for row in rows] for run, rows in runs.items()})
    for path in files:
        path.unlink()
    small = [path for path in parts_of(folder) if row_count(path) < SMALL_ROWS]
    if len(small) > SMALL_PARTS:
        merge(folder, small)
    for directory in (folder, folder / RESULTS, folder / PARQUET):
        _remove_leftovers(directory)
    return len(files)


def merge(folder: Path, small: list[Path]) -> None:
    """Make one part of all small ones: it is complete, and newer than all parts, before they go."""
    runs: dict[str, list[str]] = {}
    for path in small:
        runs.update(texts_of(path) or {})
    write_part(folder, runs)
    for path in small:
        path.unlink()


def write_failures(folder: Path) -> int:
    """Rewrite the failure table; returns the number of failed runs."""
    failed = {run for run, known in Index(folder).all().items() if known.failed}
    found = dict(read_runs(folder, failed)) if failed else {}
    lines = [json.dumps({column: rows[0][column] for column in FAILURE_COLUMNS}) + "\n" for _, rows in sorted(found.items())]
    if lines or (folder / FAILURES).exists():
        write_text(folder / FAILURES, "".join(lines))
    return len(lines)


def read_runs(folder: Path, wanted: set[str] | None = None) -> Iterator[tuple[str, list[MeasuredRow]]]:
    """Yield the runs of a folder with their rows, or the `wanted` ones among them.

    Loose files are read first: one that goes meanwhile is in a part by then.
    """
    loose = _loose(folder, wanted)
    for run, texts in _compacted_texts(folder, wanted).items():
        if run not in loose:
            yield run, [read_measured(json.loads(text), str(folder / PARQUET)) for text in texts]
    yield from loose.items()


def _loose(folder: Path, wanted: set[str] | None = None) -> dict[str, list[MeasuredRow]]:
    """Rows that are not in Parquet yet; those in results/ are newer than those in compacting/."""
    found: dict[str, list[MeasuredRow]] = {}
    for place in (RESULTS, STAGED):
        for path in sorted((folder / place).glob("*.json")):
            if path.stem not in found and (wanted is None or path.stem in wanted) and (rows := read_run(path)):
                found[path.stem] = rows
    return found


def _compacted_texts(folder: Path, wanted: set[str] | None = None) -> dict[str, list[str]]:
    """The rows in Parquet, as JSON; the newest part wins."""
    while True:
        found: dict[str, list[str]] = {}
        for path in parts_of(folder):
            texts = texts_of(path)
            if texts is None:
                break  # merged away while we read: look again
            found.update({run: rows for run, rows in texts.items() if wanted is None or run in wanted})
        else:
            return found


def _known(rows: list[MeasuredRow]) -> Known:
    return Known(worst_status([row.status for row in rows]), rows[0].finished, rows[0].request)


def worst_status(statuses: Sequence[Status]) -> Status:
    """Status of a run from those of its rows: failed or timeout if any row is."""
    return next((status for status in statuses if status in FAILED), statuses[0])


def _statuses(path: Path) -> dict[str, Known] | None:
    rows = read_part(path, ["run_id", "status", "finished", "request"])
    if rows is None:
        return None
    by_run: dict[str, list[PartRow]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"], []).append(row)
    return {run: _known_part(rows) for run, rows in by_run.items()}


def _known_part(rows: list[PartRow]) -> Known:
    request = rows[0].get("request")  # JSON in Parquet's flat columns
    return Known(worst_status([row["status"] for row in rows]), rows[0].get("finished"), json.loads(request) if request else None)


def _remove_leftovers(directory: Path) -> None:
    """Delete half-written files of killed processes; young ones may be another process's work, and stay."""
    for path in directory.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > OLD_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
