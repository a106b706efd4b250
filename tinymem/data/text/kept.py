"""What TinyMem keeps in its cache, mostly of users' text, who uses it at the moment, and its removal.

<cache>/tokens/<id>/       tokenized text, a file a block; <id> is of the tokenizer
<cache>/corpora/<id>/      corpora that were made without a folder of their own
<cache>/tokenizers/<id>/   the built-in tokenizer, and those that were converted
<cache>/curvature/<id>/    eigenvectors of curvature edits; <id> is of model, rows and labels
<cache>/<kind>/<id>.of     where the text came from, a line each; its time is that of the last use
<cache>/.used              locks: of each entry a process that uses it holds one, and who removes it holds all
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tinymem.data.text.tokens import cache_directory
from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.files import write_text
from tinymem.runtime.json import JsonObject
from tinymem.runtime.locks import POLL_SECONDS, LockFile

KINDS = {
    "tokens": "tokenized text; who has the tokenizer can read it",
    "corpora": "rows of text with what was planted in them",
    "tokenizers": "no text, but the words of a vocabulary",
    "curvature": "no text, but second moments of a model's states over rows",
}
USERS = 64  # processes that can use one entry at a time; a further one waits
LOCKS, ORIGINS = ".used", ".of"
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Kept:
    """One entry of the cache."""

    name: str
    """Its kind and id: `tokens/0f3a9c...`."""
    path: Path
    size: int
    """Bytes of its files."""
    files: int
    holds: str
    sources: tuple[str, ...]
    """Files, folders and data sets that the text came from, as far as recorded."""
    used: float
    """Time of the last use, in seconds since 1970."""

    @property
    def used_text(self) -> str:
        """Time of the last use, in UTC."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used))

    def as_json(self) -> JsonObject:
        """The entry as a JSON object."""
        return {**vars(self), "path": str(self.path), "sources": list(self.sources), "used": self.used_text}


def kept() -> list[Kept]:
    """All entries of the cache, of each kind the last used first."""
    found = [entry for kind in KINDS for path in _folders(cache_directory() / kind) if (entry := _entry(path))]
    return sorted(found, key=lambda entry: (list(KINDS).index(entry.path.parent.name), -entry.used))


def clear(names: Sequence[str] = (), *, older_than: float = 0.0) -> tuple[list[Kept], list[Kept]]:
    """Remove entries that no process uses; returns those that are removed, and those that are in use and stay.

    Args:
        names: of entries, or the start of an id; none: all.
        older_than: only those that were last used so many days ago or earlier.

    Raises:
        UserError: a name of no entry, or of several.
    """
    found = kept()
    chosen = [_named(name, found) for name in dict.fromkeys(names)] if names else found
    before = time.time() - older_than * DAY_SECONDS
    removed: list[Kept] = []
    busy: list[Kept] = []
    for entry in chosen:
        if entry.used <= before:
            (removed if _remove(entry) else busy).append(entry)
    return removed, busy


@contextmanager
def in_use(folder: Path, source: str | None = None) -> Iterator[None]:
    """Keep an entry from removal while it is used, and note when it was and where its text came from; for other folders nothing."""
    if folder.parent.parent != cache_directory():
        yield
        return
    with ExitStack() as stack:
        lock = LockFile(cache_directory() / LOCKS)
        stack.callback(lock.close)
        while not any(lock.take(_user(folder, i)) for i in range(USERS)):
            time.sleep(POLL_SECONDS)
        _note(folder, source)
        yield


def _note(folder: Path, source: str | None) -> None:
    path = folder.with_name(folder.name + ORIGINS)
    lines = {*_sources(folder), *([source] if source else [])}
    write_text(path, "".join(f"{line}\n" for line in sorted(lines)))


def _sources(folder: Path) -> list[str]:
    path = folder.with_name(folder.name + ORIGINS)
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []  # a damaged one is no obstacle


def _folders(place: Path) -> list[Path]:
    """The entries of a kind: folders of the cache itself, never one that a link leads to."""
    return sorted(p for p in place.glob("[0-9a-f]*") if p.is_dir() and not p.is_symlink()) if not place.is_symlink() else []


def _entry(path: Path) -> Kept | None:
    """The entry of a folder; None where another process has just removed it."""
    origins, kind = path.with_name(path.name + ORIGINS), path.parent.name
    try:
        sizes = [size for file in path.rglob("*") if (size := _size_of(file)) is not None]
        used = (origins if origins.is_file() else path).stat().st_mtime
        return Kept(f"{kind}/{path.name}", path, sum(sizes), len(sizes), KINDS[kind], tuple(_sources(path)), used)
    except FileNotFoundError:
        return None


def _size_of(file: Path) -> int | None:
    """Bytes of a file; None of what is none, or no longer there, as one that another process was writing and has renamed."""
    with suppress(FileNotFoundError):
        if file.is_file():
            return file.stat().st_size
    return None


def _named(name: str, found: Sequence[Kept]) -> Kept:
    same = [entry for entry in found if name == entry.name or entry.path.name.startswith(name)]
    if len(same) != 1:
        hint = "it begins several; write more of it" if same else did_you_mean(name, [entry.name for entry in found])
        raise UserError(f"expected one entry of {cache_directory()} for '{name}', found {len(same)}; {hint}")
    return same[0]


def _remove(entry: Kept) -> bool:
    """Remove an entry, unless a process uses it."""
    lock = LockFile(cache_directory() / LOCKS)
    try:
        if not all(lock.take(_user(entry.path, i)) for i in range(USERS)):
            return False
        shutil.rmtree(entry.path)
        with suppress(FileNotFoundError):
            entry.path.with_name(entry.path.name + ORIGINS).unlink()
        return True
    except OSError as error:
        raise UserError(f"could not remove {entry.path}: {error.strerror or error}; check the rights of the cache") from None
    finally:
        lock.close()


def _user(folder: Path, number: int) -> str:
    return f"{folder.parent.name}/{folder.name}/{number}"
