"""What lies in folders of runs and sweeps: the state of each, as its files tell it. Nothing is checked or loaded, so it is quick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tinymem.errors import UserError
from tinymem.results.reasons import grouped_reasons
from tinymem.results.run_folder import RunRecord, load_run
from tinymem.results.store import PLANNED, Index, read_runs
from tinymem.results.store import RECIPE as SWEEP
from tinymem.runs.lock import LOCK
from tinymem.runtime.files import read_json
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.locks import is_taken
from tinymem.runtime.words import counted

State = Literal["done", "running", "waiting", "failed"]
RUN, LOGS, STOPPED = "recipe.yaml", "logs", "the same command goes on from here"


@dataclass(frozen=True)
class Listed:
    """A run or a sweep as `tinymem runs` shows it.

    Attributes:
        name: of its folder.
        kind: run or sweep.
        state: done, running (a process is at work in it), waiting (something is left, and nobody is at work), or failed.
        progress: what is there, in words.
        why: why it failed, or why runs of a sweep were refused; empty where all went well.
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
    return "run" if (place / RUN).is_file() else "sweep" if (place / SWEEP).is_file() else None


def _run(place: Path, folder: Path) -> Listed:
    record = load_run(place, needs_results=False)
    epochs, trained = _number(record.values, "training", "epochs"), (place / "checkpoint" / "tinymem.json").is_file()
    wanted, ran = _methods(record.values), Counter(row.method for row in record.rows)
    left = [name for name in wanted if not ran[name]] if "all" not in wanted else [] if ran else ["all"]
    reasons = grouped_reasons(record.rows)
    failed = "; ".join(str(reason) for reason in reasons if reason.status != "refused")
    why = failed or ("" if trained else _last_words(folder / LOGS / f"{place.name.rpartition('-')[0]}.log"))
    state: State = "running" if is_taken(place / LOCK) else "failed" if why else "done" if trained and not left else "waiting"
    return Listed(place.name, "run", state, _progress(record, epochs, trained, len(wanted) - len(left), len(wanted)), why, *_size(place))


def _progress(record: RunRecord, epochs: int, trained: bool, done: int, wanted: int) -> str:
    if not trained:
        at = record.curve[-1].epoch if record.curve else 0
        return f"at epoch {at:,} of {epochs:,}"
    return f"trained, {done} of {counted(wanted, 'method')}" if wanted else "trained"


def _sweep(place: Path) -> Listed:
    known = Index(place).all()
    statuses = Counter(entry.status for entry in known.values())
    planned = _number(read_json(place / PLANNED, "number of runs"), "runs") if (place / PLANNED).is_file() else len(known)
    bad = {run for run, entry in known.items() if entry.status != "ok"}
    why = "; ".join(map(str, grouped_reasons(row for _, rows in (read_runs(place, bad) if bad else ()) for row in rows)))
    failed = any(entry.failed for entry in known.values())
    state: State = "running" if is_taken(place / "claims.lock") else "waiting" if len(known) < planned else "failed" if failed else "done"
    progress = f"{len(known):,} of {counted(planned, 'run')}" + "".join(f", {n:,} {status}" for status, n in sorted(statuses.items()))
    return Listed(place.name, "sweep", state, progress, why, *_size(place))


def _methods(values: JsonObject) -> Sequence[str]:
    """Names of the methods of a resolved recipe."""
    section = values.get("mitigation")
    methods = section.get("methods") if isinstance(section, dict) else None
    return [str(m["name"]) for m in methods if isinstance(m, dict)] if isinstance(methods, list) else []


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
