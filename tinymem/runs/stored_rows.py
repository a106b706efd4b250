"""The result rows that a run's folder holds: one file a method, and all of them in `results.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tinymem.mitigation.requests import MeasurementRequest
from tinymem.recipe.recipe import Recipe
from tinymem.results.run_folder import RESULTS
from tinymem.results.store import read_run
from tinymem.runtime.files import write_if_changed


def is_finished(run: Path, row: str, recipe: Recipe) -> bool:
    """Whether a method has its result, with all measurements that the recipe requests, and did not fail (then it runs again)."""
    rows = read_run(run / "results" / f"{row}.json")
    request = MeasurementRequest.of_recipe(recipe)
    return rows is not None and all(found.status != "failed" and request.answered_by(found.request) for found in rows)


def collect_rows(run: Path, first: Sequence[str]) -> bool:
    """Rewrite results.jsonl from the result files: the methods of these ids first, then those of earlier runs. True if it changed."""
    files = {path.stem: path for path in sorted((run / "results").glob("*.json"))}
    order = [row for row in dict.fromkeys(first) if row in files] + [row for row in files if row not in first]
    rows = [row for name in order for row in read_run(files[name]) or ()]
    return write_if_changed(run / RESULTS, "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows))
