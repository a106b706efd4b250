"""Rows of any number of run and sweep folders, each once, with the facts about their models.

A folder is one of: a run (`recipe.yaml`), a sweep (`sweep.yaml`), anything with `results/*.json`, or a folder of such folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.results.recipe_columns import facts_of, with_facts
from tinymem.results.row import is_ok, source_id
from tinymem.results.run_folder import FORGET, Row, RunRecord, check_folder, load_run
from tinymem.results.store import read_rows, read_run
from tinymem.runtime.files import canonical_json

# With the model and the configuration, what makes two rows the same experiment.
EXPERIMENT = ("method", "artifact", "seed", "epoch", "protocol", "device_type", *FORGET)


@dataclass(frozen=True)
class Results:
    """What reports over many runs are made from.

    Attributes:
        rows: one per method run and artifact, each with the columns of `model_columns.py`.
        trained: one per trained model and artifact, as it was before any method: the shape of `rows`, with method `none`.
        records: the folders that hold a run, with recipe and training curve.
        folders: what was read.
    """

    rows: list[Row]
    trained: list[Row] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    folders: tuple[Path, ...] = ()

    @property
    def by_source(self) -> dict[str, Row]:
        """Every row that a table can name as its source."""
        return {source_id(row): row for row in [*self.trained, *self.rows]}


def load_results(folders: Iterable[Path]) -> Results:
    """Read run and sweep folders.

    Raises:
        UserError: a folder is missing, holds no results, or a file in it is broken.
    """
    given = tuple(folders)
    found = [folder for path in given for folder in results_folders(path)]
    records = [_record(folder) for folder in found if (folder / "recipe.yaml").is_file()]
    rows = [row for record in records for row in record.rows]
    rows += [row for folder in found if not (folder / "recipe.yaml").is_file() for row in _read_rows(folder)]
    return results_of(rows, records, given)


def results_of(rows: Iterable[Row], records: Iterable[RunRecord] = (), folders: tuple[Path, ...] = ()) -> Results:
    """Rows in memory as `Results`: repeated ones once, and each trained model's own rows beside them."""
    known = list(records)
    once = _once(_share_families(list(rows)))
    return Results(once, list(_trained(once, known)), known, folders)


def _once(rows: Iterable[Row]) -> list[Row]:
    """Each experiment once, also where a run and a sweep made it on the same weights: the row that says most, else the later one."""
    found: dict[tuple[Any, ...] | str, Row] = {}
    for row in rows:
        key = _experiment(row)
        if key not in found or _said(row) >= _said(found[key]):
            found[key] = row
    return list(found.values())


def _experiment(row: Row) -> tuple[Any, ...] | str:
    if not row.get("weights") or "config" not in row:
        return source_id(row)
    return (row["weights"], canonical_json(row["config"]), *(row.get(name) for name in EXPERIMENT))


def _said(row: Row) -> tuple[bool, bool, int]:
    return is_ok(row), bool(row.get("robustness")), len(row.get("metrics_after") or ())


def model_of(row: Row) -> Any:
    """What tells models apart: the hash of the weights. A run's own `model_id` is its recipe's, a sweep's is that hash."""
    return row.get("weights") or row.get("model_id") or row.get("run")


def _share_families(rows: list[Row]) -> list[Row]:
    """Rows of a sweep learn the family of their model from the model's own run, where that was read too."""
    known = {model_of(row): row["family"] for row in rows if row.get("family") and row.get("model_id")}
    return [with_facts(row, {"family": known[model_of(row)]}) if model_of(row) in known else row for row in rows]


def results_folders(path: Path) -> list[Path]:
    """The folder itself if it holds results, else those in it that do."""
    check_folder(path)
    if holds_results(path):
        return [path]
    inside = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and holds_results(folder)]
    if not inside:
        raise UserError(f"expected a run or sweep folder, or a folder of them, at {path}, found no results there; check the path")
    return inside


def holds_results(path: Path) -> bool:
    """Whether a folder is one of a run, of a sweep, or has result files."""
    return any((path / name).exists() for name in ("recipe.yaml", "sweep.yaml", "results.jsonl")) or any(path.glob("results/*.json"))


def _record(folder: Path) -> RunRecord:
    """A run, with the facts of its recipe in every row; one that is still training has no rows yet."""
    record = load_run(folder, needs_results=False)
    files = {source_id(row): row for row in _result_files(folder)}  # newer than results.jsonl while a run is at work
    rows = list({**{source_id(row): row for row in record.rows}, **files}.values())
    facts = {**facts_of(record.recipe), "training_seconds": training_seconds(record)}
    return RunRecord(record.path, record.recipe, [with_facts(row, facts) for row in rows], record.curve)


def _read_rows(folder: Path) -> list[Row]:
    """A sweep's own reader knows its compacted rows too."""
    return read_rows(folder) if (folder / "sweep.yaml").is_file() else list(_result_files(folder))


def _result_files(folder: Path) -> Iterator[Row]:
    for path in sorted((folder / "results").glob("*.json")):
        yield from read_run(path) or ()


def training_seconds(record: RunRecord) -> float | None:
    """Wall-clock seconds that training took, without its measurements."""
    return record.curve[-1].get("seconds") if record.curve else None


# ---- trained models -----------------------------------------------------------------------------------------------------------------

MEASURED = ("memorized", "memorized_count", "memorized_by_copies", "performance", "perplexity")


def _trained(rows: list[Row], records: list[RunRecord]) -> Iterator[Row]:
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        key = (model_of(row), *(row.get(k) for k in ("epoch", "artifact", "protocol")))
        if key not in seen:
            seen.add(key)
            yield _before(row)
    tried = {row.get("run") for row in rows}
    for record in records:
        if not record.rows and record.name not in tried:
            yield from _of_curve(record)


def _before(row: Row) -> Row:
    """The row as if nothing had been done to the model. It keeps its id: that row is where the numbers stand."""
    after = {f"{name}_after": row.get(f"{name}_before") for name in MEASURED if f"{name}_before" in row}
    return {**row, **after, "method": "none", "options": {}, "status": "ok", "message": None, "seconds": None}


def _of_curve(record: RunRecord) -> Iterator[Row]:
    """Rows of a run that no method was tried on yet, from the last line of its training curve."""
    last = record.curve[-1] if record.curve else {}
    facts = {**facts_of(record.recipe), "epoch": last.get("epoch"), "training_seconds": last.get("seconds")}
    metric = "perplexity" if last.get("accuracy_ceiling") is None else "accuracy"
    for artifact, share in (last.get("memorized") or {}).items():
        before = {
            "memorized_before": share.get("share"),
            "memorized_count_before": share.get("count"),
            "performance_before": last.get(metric),
            "perplexity_before": last.get("perplexity"),
            **_by_copies(last, artifact),
        }
        rest = {"rows_scored": share.get("rows"), "performance_metric": metric, "performance_ceiling": last.get("accuracy_ceiling")}
        yield _before({"id": record.name, "run": record.name, "artifact": artifact, **facts, **before, **rest})


def _by_copies(line: Row, artifact: str) -> Row:
    classes = (line.get("memorized_by_copies") or {}).get(artifact)
    return {"memorized_by_copies_before": classes} if classes else {}
