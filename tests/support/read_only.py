"""Folders that cannot be written, for every user: root, as whom tests may run, is bound by no permissions."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LOCKED: list[Path] = []
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _heard(event: str, words: tuple[object, ...]) -> None:
    if not LOCKED or not (event in CHANGES or (event == "open" and isinstance(words[2], int) and words[2] & WRITES)):
        return
    paths = [Path(os.fsdecode(word)).absolute() for word in words[:2] if isinstance(word, str | bytes | os.PathLike)]
    if any(folder in (path, *path.parents) for path in paths for folder in LOCKED):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


sys.addaudithook(_heard)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let this process change nothing in a folder, as on a file system that is mounted so."""
    LOCKED.append(folder.resolve())
    try:
        yield
    finally:
        LOCKED.pop()
