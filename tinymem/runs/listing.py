"""What lies in folders of runs and sweeps: the state of each, as the command that made it would find it. No model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tinymem.errors import UserError
from tinymem.results.localization import FOLDER, MODELS
from tinymem.results.reasons import grouped_reasons
from tinymem.results.run_folder import RunRecord, load_run
from tinymem.results.store import PLANNED, Index, read_runs
from tinymem.results.store import RECIPE as SWEEP
from tinymem.runs.lock import LOCK
from tinymem.runtime.files import read_json, read_object
from tinymem.runtime.json import Json
from tinymem.runtime.locks import is_taken, writers_lock
from tinymem.runtime.words import counted

State = Literal["done", "running", "waiting", "failed", "unknown"]
RUN, LOGS, STOPPED = "recipe.yaml", "logs", "the same command goes on from here"


@dataclass(frozen=True)
class Listed:
    """A run or a sweep as `tinymem runs` shows it.

    Attributes:
        name: of its folder.
        kind: run or sweep.
        state: done, running (a process is at work in it), waiting (something is left, and nobody is at work), failed, or unknown (its
            recipe cannot be read here, as of a plugin that may not run).
        progress: what is there, in words.
        why: why it failed, what is left, or why runs of a sweep were refused; empty where all went well.
        bytes: size of all its files.
        changed: when a file in it was last written, in UTC.
    """

    name: str
    kind: Literal["run", "sweep"]
    state: State
    progress: str
    why: str
    bytes: int
    changed: str


def list_folders(folders: Iterable[Path]) -> list[Listed]:
    """The runs and sweeps in some folders, each of which may also be one itself, by kind and name.

    Raises:
        UserError: a folder that is not there, or a damaged file in one.
    """
    found = [listed for folder in folders for listed in _inside(folder)]
    return sorted(found, key=lambda listed: (listed.kind, listed.name))


def _inside(folder: Path) -> Iterator[Listed]:
    if not folder.is_dir():
        raise UserError(f"expected a folder of runs or sweeps at {folder}, found none; check the path, or make a run first")
    places = [folder] if _kind(folder) else sorted(place for place in folder.iterdir() if place.is_dir())
    named = {place.name for place in places}
    for place in places:
        if kind := _kind(place):
            yield _run(place, folder) if kind == "run" else _sweep(place)
    for log in sorted((folder / LOGS).glob("*.log")):  # of runs that failed before they had made anything
        if not any(name.startswith(f"{log.stem}-") for name in named) and (why := _last_words(log)):
            yield Listed(log.stem, "run", "failed", "nothing made", why, log.stat().st_size, _time(log.stat().st_mtime))


def _kind(place: Path) -> Literal["run", "sweep"] | None:
    return "run" if (place / RUN).is_file() else "sweep" if (place / SWEEP).is_file() or (place / MODELS).is_file() else None


def _run(place: Path, folder: Path) -> Listed:
    record = load_run(place, needs_results=False)
    trained, failed = (place / "checkpoint" / "tinymem.json").is_file(), _failures(record)
    state: State
    try:
        state, progress, left = _of_trained(place, record) if trained else ("waiting", _epochs(record), "")
    except UserError as error:  # a recipe of another version, or of a plugin that may not run
        state, progress, left = "unknown", "trained", str(error)
    why = failed or left or ("" if trained else _last_words(folder / LOGS / f"{place.name.rpartition('-')[0]}.log"))
    if is_taken(place / LOCK):
        state = "running"
    elif failed or (why and not trained):
        state = "failed"
    return Listed(place.name, "run", state, progress, why, *_size(place))


def _of_trained(place: Path, record: RunRecord) -> tuple[State, str, str]:
    """State, progress and what is left of a trained run, as `tinymem run` would find them here."""
    from tinymem.recipe.recipe import open_recipe
    from tinymem.registry import with_names_of
    from tinymem.runs.left import left_of
    from tinymem.runs.pipeline import method_calls
    from tinymem.runtime.device import resolve_device

    recipe = open_recipe(place / RUN, only_read=True)
    with with_names_of(file.sha256 for file in recipe.plugins):
        left = left_of(place, recipe, method_calls(recipe), resolve_device("auto"))
    done = len(left.planned) - len(left.pending)
    progress = f"trained, {done} of {counted(len(left.planned), 'method')}" if left.planned else "trained"
    steps = ", ".join(left.steps())
    return ("waiting" if steps else "done"), progress, f"again: {left.why}" if left.why else f"left: {steps}" if steps else ""


def _failures(record: RunRecord) -> str:
    """Why methods failed."""
    return "; ".join(str(reason) for reason in grouped_reasons(record.rows) if reason.status != "refused")


def _epochs(record: RunRecord) -> str:
    at = record.curve[-1].epoch if record.curve else 0
    return f"at epoch {at:,} of {_number(record.values, 'training', 'epochs'):,}"


def _sweep(place: Path) -> Listed:
    known = Index(place).all()
    statuses = Counter(entry.status for entry in known.values())
    planned = _number(read_json(place / PLANNED, "number of runs"), "runs") if (place / PLANNED).is_file() else len(known)
    bad = {run for run, entry in known.items() if entry.status != "ok"}
    why = "; ".join(map(str, grouped_reasons(row for _, rows in (read_runs(place, bad) if bad else ()) for row in rows)))
    localized, broken, models = _localized(place)
    if broken:
        name, reason = next(iter(broken.items()))
        why = "; ".join(filter(None, [why, f"localization failed in {counted(len(broken), 'model')} ({name}: {reason})"]))
    failed = any(entry.failed for entry in known.values()) or bool(broken)
    left = len(known) < planned or localized + len(broken) < models
    busy = is_taken(place / "claims.lock") or is_taken(writers_lock(place / FOLDER))
    state: State = "running" if busy else "waiting" if left else "failed" if failed else "done"
    progress = f"{len(known):,} of {counted(planned, 'run')}" + "".join(f", {n:,} {status}" for status, n in sorted(statuses.items()))
    progress += f", localization in {localized:,} of {counted(models, 'model')}" if models else ""
    return Listed(place.name, "sweep", state, progress, why, *_size(place))


def _localized(place: Path) -> tuple[int, dict[str, str], int]:
    """Trained models of a sweep that its benchmark of localization has finished, why it failed in others, and the number of all.

    No model is among them where the sweep has no benchmark.
    """
    found = read_object(place / MODELS, "list of models") if (place / MODELS).is_file() else {}
    models, done, failed = found.get("models", []), found.get("done", []), found.get("failed", {})
    are_lists = isinstance(models, list) and isinstance(done, list) and isinstance(failed, dict)
    if not are_lists or not all(isinstance(value, str) for value in (*models, *done, *failed.values())):
        raise UserError(f"expected names of models in {place / MODELS}, got something else; the file is damaged: run the sweep again")
    left = set(models) - set(done)
    return len(set(models)) - len(left), {name: why for name, why in failed.items() if name in left}, len(set(models))


def _number(values: Json, *keys: str) -> int:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, int) else 0


def _last_words(log: Path) -> str:
    """The last line of a log, if it is an error; empty for a run that was stopped, or has none."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("tinymem: ") if last.startswith("tinymem: ") and STOPPED not in last else ""


def _size(place: Path) -> tuple[int, str]:
    """Bytes of all files, and when the newest was written."""
    found = [path.stat() for path in place.rglob("*") if path.is_file()]
    return sum(status.st_size for status in found), _time(max((status.st_mtime for status in found), default=place.stat().st_mtime))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
