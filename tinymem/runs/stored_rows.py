"""The result rows that a run's folder holds: one file a method, and all of them in `results.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import ASKED, RESULTS
from tinymem.results.store import read_run
from tinymem.runtime.files import canonical_json, write_if_changed


def collect_rows(run: Path, asked: Sequence[str]) -> bool:
    """Rewrite results.jsonl from the result files: the methods of these ids first, then those of earlier runs. True if it changed.

    What has another id and yet the same method, options and device as one of these was measured by an older rule, or by a plugin that was
    changed since. It is left out, as it would stand beside the new numbers without a word; of two such of earlier runs the older file is.
    """
    files = {path.stem: path for path in sorted((run / "results").glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name))}
    found = {name: list(read_run(path) or ()) for name, path in files.items()}
    planned = [row for row in dict.fromkeys(asked) if row in files]
    others = sorted(name for name in files if name not in planned)
    newest = {_what(row): name for name in (*(name for name in files if name in others), *planned) for row in found[name]}
    rows = [row for name in (*planned, *others) for row in found[name] if newest[_what(row)] == name]
    changed = write_if_changed(run / RESULTS, "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows))
    if {row.id for row in rows} - {*planned} or (run / ASKED).is_file():
        changed |= write_if_changed(run / ASKED, json.dumps(planned) + "\n")
    return changed


def _what(row: MeasuredRow) -> tuple[str | None, ...]:
    """What a row is of, in one run's folder."""
    return row.method, canonical_json(row.config), row.artifact, row.device_type, row.forget, canonical_json(row.forget_fraction)
