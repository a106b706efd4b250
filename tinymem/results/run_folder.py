"""Reads a run's folder: its recipe, its result rows and its training curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tinymem.errors import UserError, did_you_mean
from tinymem.results.store import ROW_FIELDS
from tinymem.runtime.files import strict_json

Row = dict[str, Any]

CURVE_FIELDS = ("epoch",)
# Which artifacts a method was to forget, and the share of their memorized rows that it was shown.
FORGET = ("forget", "forget_fraction")


@dataclass(frozen=True)
class RunRecord:
    """What a report is made from."""

    path: Path
    recipe: dict[str, Any]
    rows: list[Row]
    curve: list[Row]

    @property
    def name(self) -> str:
        """Name of the run's folder, `<recipe>-<id>`."""
        return self.path.resolve().name


def load_run(run: Path, *, needs_results: bool = True) -> RunRecord:
    """Read `recipe.yaml`, `results.jsonl` and, where there is one, `training/metrics.jsonl`.

    Args:
        run: the run's folder.
        needs_results: refuse a run whose methods have not been run yet.

    Raises:
        UserError: the folder or a needed file is missing, or a line in it is broken.
    """
    check_folder(run)
    recipe = _read_recipe(run / "recipe.yaml")
    results, metrics = run / "results.jsonl", run / "training" / "metrics.jsonl"
    if not results.exists() and needs_results:
        raise UserError(f"expected results at {results}, found none; run the recipe's mitigations first, then report again")
    curve = _read_lines(metrics, CURVE_FIELDS) if metrics.exists() else []
    rows = _read_lines(results, ROW_FIELDS) if results.exists() else []
    return RunRecord(run, recipe, rows, curve)


def check_folder(run: Path) -> None:
    """Raise UserError unless the folder is there; the message names a sibling of a similar name."""
    if run.is_dir():
        return
    if run.exists():
        raise UserError(f"expected a run's folder, got the file {run}; name the folder that holds results.jsonl")
    siblings = [path.name for path in run.parent.iterdir() if (path / "recipe.yaml").exists()] if run.parent.is_dir() else []
    hint = did_you_mean(run.name, siblings) if siblings else "check the path, or make a run first"
    raise UserError(f"expected a run's folder at {run}, found none; {hint}")


def _read_recipe(path: Path) -> dict[str, Any]:
    text = _read_text(path, "is this the folder of a run?")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"expected YAML in {path}, got something else ({reason}); repair it or run the recipe again") from None
    if not isinstance(recipe, dict):
        raise UserError(f"expected a mapping of keys in {path}, got {type(recipe).__name__}; repair it or run the recipe again")
    return recipe


def _read_lines(path: Path, fields: tuple[str, ...]) -> list[Row]:
    lines = _read_text(path, "run the recipe again").splitlines()
    return [_read_line(path, number, line, fields) for number, line in enumerate(lines, 1) if line.strip()]


def _read_line(path: Path, number: int, line: str, fields: tuple[str, ...]) -> Row:
    try:
        row = strict_json(line)
    except ValueError as error:
        raise _broken(path, number, f"{line[:40]!r} ({error})") from None
    if not isinstance(row, dict):
        raise _broken(path, number, f"{type(row).__name__} {line[:40]!r}")
    if missing := [field for field in fields if row.get(field) is None]:
        raise _broken(path, number, f"one without {', '.join(missing)}")
    return row


def _broken(path: Path, number: int, got: str) -> UserError:
    return UserError(f"expected a JSON object in line {number} of {path}, got {got}; delete the line and run its step again")


def _read_text(path: Path, hint: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"expected a file at {path}, found none; {hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"expected UTF-8 text in {path}, got other bytes ({error.reason}); run its step again") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"expected a readable file at {path}, got: {reason}; check the path and its rights") from None
