"""Reads a run's folder: its recipe, its result rows and its training curve."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError, did_you_mean
from tinymem.recipe.source import read_values
from tinymem.results.curve import CurvePoint, read_curve
from tinymem.results.model_columns import filled, recipe_columns
from tinymem.results.read import read_measured
from tinymem.results.row import Identity, MeasuredRow
from tinymem.results.share import ShareColumn
from tinymem.runtime.files import json_lines, read_json
from tinymem.runtime.json import JsonObject

if TYPE_CHECKING:
    from tinymem.recipe.recipe import Recipe

RECIPE, RESULTS = "recipe.yaml", "results.jsonl"
ASKED = "asked.json"
"""Ids of the results that the recipe asks for, of a run that holds others of earlier recipes too; without it, all are."""
TRAINING_ROWS = "training/memorized.json"
"""Share of training rows that the model has memorized, of a recipe without artifacts."""


@dataclass(frozen=True)
class RunRecord:
    """A run's records, from which a report is made: recipe, result rows and training curve."""

    path: Path
    rows: list[MeasuredRow]
    curve: list[CurvePoint]
    known: Recipe | None = None
    """The recipe, if it has been read already."""

    @cached_property
    def recipe(self) -> Recipe | None:
        """The run's recipe, read when it is first needed, since reading it takes longer than the rows; None for rows without a run.

        Raises:
            UserError: a damaged recipe.
        """
        if self.known:
            return self.known
        from tinymem.recipe.recipe import open_recipe

        path = self.path / RECIPE
        return open_recipe(path, only_read=True) if path.is_file() else None

    @cached_property
    def recipe_text(self) -> str:
        """The resolved recipe as YAML; empty for rows without a run."""
        if self.known:
            from tinymem.recipe.recipe import dump_recipe

            return dump_recipe(self.known)
        path = self.path / RECIPE
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @cached_property
    def values(self) -> JsonObject:
        """The recipe as it stands in its file, unchecked: enough to show, and much quicker to read; empty without one.

        Raises:
            UserError: a damaged file.
        """
        if self.known:
            return self.known.model_dump(mode="json")
        path = self.path / RECIPE
        return read_values(path) if path.is_file() else {}

    @cached_property
    def columns(self) -> Identity:
        """The columns of the run's model: those of its rows, else of its recipe."""
        for row in self.rows:
            if row.model_name is not None:
                return Identity(**{f.name: getattr(row, f.name) for f in fields(Identity)})
        return recipe_columns(self.recipe) if self.recipe else Identity()

    @property
    def filled_rows(self) -> list[MeasuredRow]:
        """The rows, with the columns that the run's model decides in each."""
        return [row if row.model_name is not None else filled(row, self.columns) for row in self.rows]

    @cached_property
    def parts(self) -> tuple[RunRecord, RunRecord]:
        """The record with the rows of the recipe's methods alone, and with those that earlier recipes of the run asked for.

        Raises:
            UserError: the file that tells them apart is damaged.
        """
        path = self.path / ASKED
        asked = read_json(path, "list of ids") if path.is_file() else [row.id for row in self.rows]
        if not isinstance(asked, list):
            raise UserError(f"expected a list of ids in {path}, got {type(asked).__name__}; delete the file and run the recipe again")
        both = [[row for row in self.rows if (row.id in asked) == here] for here in (True, False)]
        return replace(self, rows=both[0]), replace(self, rows=both[1])

    @property
    def training_rows(self) -> ShareColumn | None:
        """Share of the training rows that the model has memorized; None unless the recipe plants nothing."""
        path = self.path / TRAINING_ROWS
        stored = read_json(path, "share of training rows") if path.is_file() else None
        return {"share": stored["share"], "count": stored["count"], "rows": stored["rows"]} if stored else None

    @property
    def name(self) -> str:
        """Name of the run's folder, `<recipe>-<id>`, also of rows about the checkpoint in it."""
        folder = self.path.resolve()
        return folder.parent.name if folder.name == "checkpoint" else folder.name


def load_run(run: Path, *, needs_results: bool = True) -> RunRecord:
    """Read `recipe.yaml`, `results.jsonl` and, where there is one, `training/metrics.jsonl`.

    Args:
        run: the run's folder.
        needs_results: refuse a run whose methods have not been run yet.

    Raises:
        UserError: the folder or a needed file is missing, or a line in it is broken.
    """
    check_folder(run)
    results, metrics = run / RESULTS, run / "training" / "metrics.jsonl"
    if not results.exists() and needs_results:
        raise UserError(f"expected results at {results}, found none; run the recipe's mitigations first, then report again")
    rows = read_rows_file(results) if results.exists() else []
    return RunRecord(run, rows, read_curve(metrics))


def check_folder(run: Path) -> None:
    """Raise UserError unless the folder is there; the message names a sibling of a similar name."""
    if run.is_dir():
        return
    if run.exists():
        raise UserError(f"expected a run's folder, got the file {run}; name the folder that holds results.jsonl")
    siblings = [path.name for path in run.parent.iterdir() if (path / "recipe.yaml").exists()] if run.parent.is_dir() else []
    hint = did_you_mean(run.name, siblings) if siblings else "check the path, or make a run first"
    raise UserError(f"expected a run's folder at {run}, found none; {hint}")


def read_rows_file(path: Path) -> list[MeasuredRow]:
    """The rows of a `results.jsonl`.

    Raises:
        UserError: a line is damaged.
    """
    again = "delete the line and run its step again"
    return [read_measured(values, f"line {number} of {path}", again) for number, values in json_lines(path, again)]
