"""The result rows that a run's folder holds: one file a method, and all of them in `results.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tinymem.mitigation.requests import MeasurementRequest
from tinymem.recipe.recipe import Recipe
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RESULTS
from tinymem.results.store import read_run
from tinymem.runtime.files import canonical_json, write_if_changed


def is_finished(run: Path, row: str, recipe: Recipe) -> bool:
    """Whether a method has its result, with all measurements that the recipe requests, and did not fail (then it runs again)."""
    rows = read_run(run / "results" / f"{row}.json")
    request = MeasurementRequest.of_recipe(recipe)
    return rows is not None and all(found.status != "failed" and request.answered_by(found.request) for found in rows)


def collect_rows(run: Path, first: Sequence[str]) -> bool:
    """Rewrite results.jsonl from the result files: the methods of these ids first, then those of earlier runs. True if it changed.

    What has another id and yet the same method, options and device as one of these was measured by an older rule, or by a plugin that was
    changed since. It is left out, as it would stand beside the new numbers without a word.
    """
    files = {path.stem: path for path in sorted((run / "results").glob("*.json"))}
    found = {name: list(read_run(path) or ()) for name, path in files.items()}
    planned = [row for row in dict.fromkeys(first) if row in files]
    superseded = {_what(row) for name in planned for row in found[name]}
    earlier = [row for name in files if name not in first for row in found[name] if _what(row) not in superseded]
    rows = [*(row for name in planned for row in found[name]), *earlier]
    return write_if_changed(run / RESULTS, "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows))


def _what(row: MeasuredRow) -> tuple[str | None, ...]:
    """What a row is of, in one run's folder."""
    return row.method, canonical_json(row.config), row.artifact, row.device_type, row.forget, canonical_json(row.forget_fraction)
