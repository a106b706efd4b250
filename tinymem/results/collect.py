"""Rows of any number of run and sweep folders, each once, with the columns of their models.

A folder is one of: a run (`recipe.yaml`), a sweep (`sweep.yaml`), anything with `results/*.json`, or a folder of such folders.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.results.columns import EXPERIMENT_COLUMNS, MOMENT_COLUMNS
from tinymem.results.curve import CurvePoint
from tinymem.results.localization import FOLDER, read_localization
from tinymem.results.model_columns import Row, filled, recipe_columns
from tinymem.results.row import Identity, LocalizationRow, MeasuredRow, PerformanceMetric, TrainingRow
from tinymem.results.run_folder import RECIPE, RunRecord, check_folder, load_run
from tinymem.results.share import ShareColumn
from tinymem.results.store import read_rows, read_run
from tinymem.runtime.files import canonical_json
from tinymem.runtime.json import Json

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe


Unit = tuple[str | None, int | None, int | None]
"""Configuration, epoch and seed of a model."""


@dataclass(frozen=True)
class Results:
    """The results behind a report over many runs.

    Attributes:
        rows: one per method run and artifact, each with the columns of `model_columns.py`.
        trained: one per trained model and artifact, as it was before any method: the shape of `rows`, with method `none`.
        records: the folders that hold a run, with recipe and training curve.
        folders: the folders that were read.
        localization: rows of localization benchmarks.
    """

    rows: list[MeasuredRow]
    trained: list[TrainingRow] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    folders: tuple[Path, ...] = ()
    localization: list[LocalizationRow] = field(default_factory=list)

    @property
    def by_source(self) -> dict[str, MeasuredRow]:
        """Every row that a table can name as its source."""
        return {row.source: row for row in [*self.trained, *self.rows]}


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
    return replace(results_of(rows, records, given), localization=_localized(found))


def _localized(folders: Iterable[Path]) -> list[LocalizationRow]:
    """Rows of localization benchmarks; a result that several folders hold once: the later one, if it did not fail."""
    found: dict[str, list[LocalizationRow]] = {}
    for folder in folders:
        for row_id, same in groupby(read_localization(folder), key=lambda row: row.id):
            of_id = list(same)
            if row_id not in found or all(row.is_ok for row in of_id):
                found[row_id] = of_id
    return [row for rows in found.values() for row in rows]


def results_of(rows: Iterable[MeasuredRow], records: Iterable[RunRecord] = (), folders: tuple[Path, ...] = ()) -> Results:
    """Rows in memory as `Results`: repeated ones once, and each trained model's own rows in addition."""
    known = list(records)
    once = _once(_share_families(with_windows(rows)))
    return Results(once, list(_trained(once, known)), known, folders)


def _once(rows: Iterable[MeasuredRow]) -> list[MeasuredRow]:
    """Each experiment once, also where a run and a sweep made it on the same weights: the most complete row, else the later one.

    A result that the method computed in another precision or way than an older TinyMem gives way to the newer one, and one of an earlier
    version of a plugin to that of a later, where it is known when they ended; else both stay.
    """
    found: dict[tuple[Json, ...] | str, dict[str | None, MeasuredRow]] = defaultdict(dict)
    for row in rows:
        versions = found[_experiment(row)]
        if row.plugin not in versions or _replaces(row, versions[row.plugin]):
            versions[row.plugin] = row
    return [row for versions in found.values() for row in _latest([*versions.values()])]


def _latest(versions: list[MeasuredRow]) -> list[MeasuredRow]:
    ended = [row.finished for row in versions if row.finished]
    return [row for row in versions if row.finished == max(ended)] if len(ended) == len(versions) else versions


def _replaces(row: MeasuredRow, known: MeasuredRow) -> bool:
    if row.is_ok and known.is_ok and row.computed_in != known.computed_in:
        return _computed(row) >= _computed(known)
    return _completeness(row) >= _completeness(known)


def _computed(row: MeasuredRow) -> tuple[bool, str]:
    """How new the way is in which a row was computed: rows that do not say it are the oldest."""
    return row.computed_in is not None, row.finished or ""


def _experiment(row: MeasuredRow) -> tuple[Json, ...] | str:
    if not row.weights or row.config is None:
        return row.source
    return (canonical_json(row.config), *measured_on(row), *(row[name] for name in EXPERIMENT_COLUMNS))


def _completeness(row: MeasuredRow) -> tuple[bool, bool, int]:
    return row.is_ok, bool(row.robustness), len(row.metrics_after or ())


def model_of(row: MeasuredRow) -> str | None:
    """Id that distinguishes models: the hash of the weights, else `model_id` (of a run its recipe's id), else the name of the run."""
    return row.weights or row.model_id or row.run


def measured_on(row: MeasuredRow) -> tuple[str | None, str, str | None, int | None, int | None]:
    """What tells apart measurements of a model and its weights: the weights, their type in memory, the rows from files, and the windows."""
    return model_of(row), row.dtype or "float32", row.rows_id, row.prompt, row.match


def configuration_id(run: str | None) -> str | None:
    """The id of a recipe's model in the name of its run's folder; None for models that no recipe of ours made.

    >>> configuration_id("quickstart-ab12cd34"), configuration_id("runs/pythia")
    ('ab12cd34', None)
    """
    found = re.fullmatch(r"[^/]*-([0-9a-f]{8})", run or "")
    return found[1] if found else None


def unit_of(row: MeasuredRow) -> Unit:
    """What counts once in means, spreads and counts: a model's configuration and seed, whatever folder and weights it is in.

    Of a model that no recipe of ours made the weights are the configuration: two of them may have one name.
    """
    own = configuration_id(row.run), row.corpus_sha256  # a text may have changed under one recipe
    if any(own):
        return "-".join(part[:8] for part in own if part), row.epoch, row.seed
    return weights_of_stranger(row) or row.model_name, row.epoch, row.seed


def weights_of_stranger(row: MeasuredRow) -> str | None:
    """The weights of a model that no recipe of ours made; None for others."""
    return None if row.data or row.corpus_sha256 else row.weights


def _share_families(rows: list[MeasuredRow]) -> list[MeasuredRow]:
    """Rows, where those of a sweep have the family of their model from the model's own run, if that was read too."""
    known = {measured_on(row): Identity(family=row.family) for row in rows if row.family and row.model_id}
    return [filled(row, known[measured_on(row)]) if measured_on(row) in known else row for row in rows]


def with_windows(rows: Iterable[Row]) -> list[Row]:
    """Rows, where those of an older TinyMem, which lack them, have the windows and the id of the rows from files of other rows.

    Those are rows of the same weights, if they all have the same.
    """
    given = list(rows)
    known: dict[tuple[str | None, str], set[tuple[str | None, int | None, int | None]]] = defaultdict(set)
    for row in given:
        known[model_of(row), row.artifact] |= {(row.rows_id, row.prompt, row.match)} if _has_window(row) else set()
    return [row if _has_window(row) else _completed(row, known[model_of(row), row.artifact]) for row in given]


def _has_window(row: MeasuredRow) -> bool:
    return row.rows_id is not None or (row.match is not None and row.rows_left_out is None)


def _completed(row: Row, windows: set[tuple[str | None, int | None, int | None]]) -> Row:
    if len(windows) != 1:
        return row
    [(rows_id, prompt, match)] = windows
    return filled(row, Identity(rows_id=rows_id, prompt=prompt, match=match))


def results_folders(path: Path) -> list[Path]:
    """The folder itself if it holds results, else those in it that do.

    Raises:
        UserError: no such folder, or no results in it.
    """
    check_folder(path)
    if holds_results(path):
        return [path]
    inside = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and holds_results(folder)]
    if not inside:
        raise UserError(f"expected a run or sweep folder, or a folder of them, at {path}, found no results there; check the path")
    return inside


def holds_results(path: Path) -> bool:
    """Whether a folder is that of a run or of a sweep, or has result files."""
    named = any((path / name).exists() for name in ("recipe.yaml", "sweep.yaml", "results.jsonl"))
    return named or any(any(path.glob(f"{place}/*.json")) for place in ("results", FOLDER))


def _record(folder: Path) -> RunRecord:
    """A run, with the columns of its recipe in every row; one that is still training has no rows yet."""
    record = load_run(folder, needs_results=False)
    files = {row.source: row for row in _result_files(folder)}  # newer than results.jsonl while a run is at work
    rows = list({**{row.source: row for row in record.rows}, **files}.values())
    if record.recipe is None:
        raise UserError(f"expected a recipe at {folder / RECIPE}, found none; check the folder")
    columns = recipe_columns(record.recipe, training_seconds=training_seconds(record))
    return replace(record, rows=[filled(row, columns) for row in rows], known=record.recipe)


def _read_rows(folder: Path) -> list[MeasuredRow]:
    """Rows of a folder without a recipe: by the sweep's reader, which includes compacted rows, or from its result files."""
    return read_rows(folder) if (folder / "sweep.yaml").is_file() else list(_result_files(folder))


def _result_files(folder: Path) -> Iterator[MeasuredRow]:
    for path in sorted((folder / "results").glob("*.json")):
        yield from read_run(path) or ()


def training_seconds(record: RunRecord) -> float | None:
    """Wall-clock seconds that training took, without its measurements."""
    return record.curve[-1].seconds if record.curve else None


# ---- trained models -----------------------------------------------------------------------------------------------------------------


def _trained(rows: list[MeasuredRow], records: list[RunRecord]) -> Iterator[TrainingRow]:
    done: set[tuple[Json, ...]] = set()
    for row in sorted(rows, key=lambda row: row.memorized_before is None):  # after those of runs that came to measure
        key = (*measured_on(row), row.epoch, row.artifact, row.protocol)
        if key not in done:
            done.add(key)
            yield _before(row)
    tried = {row.run for row in rows}
    for record in records:
        if not record.rows and record.name not in tried and record.recipe is not None:
            yield from _of_curve(record, record.recipe)


def _before(row: MeasuredRow) -> TrainingRow:
    """A training row with the numbers before the edit. It has the id of the original row, which holds these numbers."""
    values = {f.name: getattr(row, f.name) for f in fields(MeasuredRow)}
    values |= {f"{name}_after": values[f"{name}_before"] for name in MOMENT_COLUMNS}
    return TrainingRow(**{**values, "method": "none", "options": {}, "status": "ok", "message": None, "seconds": None})


def _of_curve(record: RunRecord, recipe: Recipe) -> Iterator[TrainingRow]:
    """Rows of a run that no method was tried on yet, from the end of its curve; of its training rows if it plants nothing."""
    known = record.training_rows
    for point in record.curve[-1:]:
        shares = point.memorized or ({"training rows": known} if known else {})
        yield from (_of_point(record.name, recipe, point, artifact, share) for artifact, share in shares.items())


def _of_point(name: str, recipe: Recipe, last: CurvePoint, artifact: str, share: ShareColumn) -> TrainingRow:
    metric: PerformanceMetric = "perplexity" if last.accuracy_ceiling is None else "accuracy"
    columns = replace(recipe_columns(recipe, epoch=last.epoch, training_seconds=last.seconds), run=name)
    row = MeasuredRow(
        **vars(columns),
        id=name,
        method="none",
        artifact=artifact,
        status="ok",
        memorized_before=share["share"],
        memorized_count_before=share["count"],
        memorized_by_copies_before=last.memorized_by_copies.get(artifact),
        performance_before=last.perplexity if metric == "perplexity" else last.accuracy,
        perplexity_before=last.perplexity,
        rows_scored=share["rows"],
        performance_metric=metric,
        performance_ceiling=last.accuracy_ceiling,
    )
    return _before(row)
