"""Claims on the runs of a sweep, between workers and supervisors on any number of machines: each run has one process at work on it.

A claim is a lock (`runtime.locks`) in the sweep's `claims.lock`, named by the content id of the claimed work: it ends with its process.
A run that is done twice all the same, on a file system that only pretends to lock, counts once: its result has one name.
"""

from __future__ import annotations

from pathlib import Path

from tinymem.runtime.locks import LockFile

LOCK = "claims.lock"
COMPACTION = "compaction"


class Claims(LockFile):
    """Locks that this process holds on work units of a sweep's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOCK)
