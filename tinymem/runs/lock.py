"""The lock of a run's folder: one process at a time, and no folder of a run that has made nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tinymem.errors import UserError
from tinymem.runtime.files import remove_leftovers
from tinymem.runtime.locks import LockFile, locked

LOCK = ".lock"
# A run's folders in which a killed process may have left half-written files.
WRITTEN = ("", "plugins", "training", "checkpoints", "results", "shown")


def lock_of_run(path: Path, is_complete: Callable[[], bool]) -> AbstractContextManager[None]:
    """The lock of a run's folder; none where nothing can be written and nothing is left to do, so that a finished run is shown."""
    try:
        LockFile(path / LOCK).close()
    except UserError:
        if not is_complete():
            raise
        return nullcontext()
    return _alone(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no two processes work in it; the lock ends with its process.

    A run that fails before it has made anything, for a recipe that cannot work, leaves no folder.
    """
    with locked(path / LOCK, wait=False) as alone:
        if not alone:
            raise UserError(f"another process is at work in {path}; wait for it to end")
        for folder in WRITTEN:  # only now: before, they may be of that process
            remove_leftovers(path / folder)
        try:
            yield
        except UserError:
            if {entry.name for entry in path.iterdir()} <= {LOCK, "recipe.yaml", "plugins"}:
                shutil.rmtree(path)
            raise
