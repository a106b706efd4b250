"""The files that a user has agreed to run, by the hash of their content, so that a stranger's are not run because they lie in a folder.

They are remembered for the user, outside of the folders of runs, which may be copied: $XDG_STATE_HOME/tinymem/plugins, or
~/.local/state/tinymem/plugins. Where that cannot be written, a user agrees anew in each process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def agree(sha256: str) -> None:
    """Remember that the user runs content of this hash."""
    with suppress(OSError, RuntimeError):  # RuntimeError: no home
        path = _folder() / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def agreed(sha256: str) -> bool:
    """Whether the user has run content of this hash before."""
    with suppress(OSError, RuntimeError):
        return (_folder() / sha256).is_file()
    return False


def _folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tinymem" / "plugins"
