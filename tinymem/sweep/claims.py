"""Who works on what, between processes that may be killed at any moment, on one machine or on several with a shared file system.

A claim is a POSIX lock on one byte of one file, `claims.lock`; the byte is named by the content id of what is claimed. Reasons:
- the kernel (or the file server, when a whole node is gone) lets go of a lock when its process ends, SIGKILL included. Claim files with
  heartbeats need a time after which a claim is void: too short, and a busy worker is robbed; too long, and its runs wait for nobody;
- NFS, Lustre and GPFS know POSIX locks, but not everywhere `flock`; and 100,000 locked bytes are not 100,000 lock files;
- a forked child does not inherit them, so a stray grandchild cannot keep a dead worker's claim.
Their known trap is that closing any descriptor of the file drops all locks of a process: so a process opens it once, and keeps it.
Where a file system pretends to lock, a run may be done twice, and still counts once: its result has one name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from tinymem.errors import UserError

LOCK = "claims.lock"
COMPACTION = "compaction"
_SPAN = 1 << 62  # file offsets are signed 64-bit numbers
_open: dict[str, int] = {}


class Claims:
    """Claims of this process in a sweep's folder; not for use in several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file = _descriptor(self.path)

    def take(self, name: str) -> bool:
        """Claim what has this content id (or name); False if another process has it.

        Raises:
            UserError: the file system has no locks.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise UserError(f"expected a file system with POSIX locks at {self.path}: {error.strerror}; name another folder") from error
        return True

    def release(self, name: str) -> None:
        """Give a claim back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(name))


def _descriptor(path: Path) -> int:
    """The one descriptor of this process; another only where the file was removed and made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = str(path.resolve())
    if key in _open and path.exists() and os.fstat(_open[key]).st_ino == path.stat().st_ino:
        return _open[key]
    _open[key] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    return _open[key]


def _place(name: str) -> int:
    """Byte of a name. Should two names share one, they only wait for each other."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % _SPAN
