"""Result rows of checkpoints, here or on the Hub, for reports: the numbers that are stored with their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tinymem.errors import UserError
from tinymem.hub.fetch import checkpoint_folder
from tinymem.hub.published import Results as Stored
from tinymem.models.metadata import read_metadata, verify_weights
from tinymem.models.weights import CONFIG, METADATA, weights_id
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.collect import Results, load_results, measured_on, results_of, with_windows
from tinymem.results.model_columns import filled, recipe_columns
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow, PerformanceMetric, TrainingRow
from tinymem.runs.results_of import stored_results
from tinymem.training.checkpoints import recipe_of, run_name


def results_of_places(places: Sequence[Path], *, max_size: int | None = None) -> Results:
    """The results of folders of runs and sweeps, and of checkpoints, whose numbers are those stored with them.

    A model that is in both counts once.

    Args:
        places: folders; a model of the Hub as `ORG/NAME[@REVISION]`, which is fetched and verified.
        max_size: bytes that such a model may have; None: as many as `fetch` takes unasked.

    Raises:
        UserError: as `load_results` and `hub.fetch.fetch`; changed weights, or a checkpoint without numbers.
    """
    folders = [checkpoint_folder(place, max_size=max_size) for place in places]
    checkpoints = [folder for folder in folders if (folder / CONFIG).is_file()]
    others = [folder for folder in folders if folder not in checkpoints]
    found = load_results(others) if others else Results([])
    rows = [row for folder in checkpoints for row in rows_of_checkpoint(folder)]
    trained = [row for row in rows if isinstance(row, TrainingRow)]
    merged = results_of([*found.rows, *(row for row in rows if row not in trained)], found.records, tuple(places))
    every = with_windows([*merged.trained, *trained])
    once = {(*measured_on(row), row.epoch, row.artifact, row.protocol): row for row in reversed(every)}
    return replace(merged, trained=[*reversed(once.values())], localization=found.localization)


def rows_of_checkpoint(folder: Path) -> list[MeasuredRow]:
    """The rows of an edit, or those of a trained model, with the commit of the Hub if it was fetched.

    Raises:
        UserError: weights that changed since they were measured, or no numbers.
    """
    metadata = read_metadata(folder)
    recipe = recipe_of(folder, metadata, only_read=True)
    columns = checkpoint_columns(folder, metadata, recipe)
    if metadata.mitigation is not None:
        rows = [read_measured(values, str(folder / METADATA), "copy the checkpoint again") for values in metadata.mitigation]
        return [filled(replace(row, commit=columns.commit or row.commit), columns) for row in rows]
    stored = stored_results(folder, metadata)
    if recipe is None or stored is None:
        raise UserError(f"expected numbers that are stored with the model in {folder}, got none; `tinymem evaluate` measures it")
    weights = weights_id(folder, verify_weights(folder, metadata))
    own = replace(columns, run=run_name(folder), weights=weights, corpus_sha256=metadata.corpus_sha256)
    row = filled(MeasuredRow(**vars(own), id=weights, method="none", artifact="", status="ok"), recipe_columns(recipe))
    return [*_of_numbers(row, stored)]


def _of_numbers(row: MeasuredRow, stored: Stored) -> Iterator[TrainingRow]:
    """A row for each artifact, whose numbers before and after are the stored ones."""
    metric: PerformanceMetric = "perplexity" if stored.accuracy is None else "accuracy"
    performance = stored.perplexity if stored.accuracy is None else stored.accuracy
    for artifact, counted in stored.memorized.items():
        memorized = {"memorized": counted.share, "memorized_count": counted.count}
        numbers = {**memorized, "performance": performance, "perplexity": stored.perplexity}
        moments = {f"{name}_{moment}": value for name, value in numbers.items() for moment in ("before", "after")}
        yield TrainingRow(**{**vars(row), **moments, "artifact": artifact, "rows_scored": counted.rows, "performance_metric": metric})
