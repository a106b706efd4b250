"""Locks between processes that may be killed at any moment, on one machine or on several with a shared file system.

A lock is a POSIX lock on one byte of a file; the byte is the hash of a name, so one file serves any number of names. Reasons:
- the kernel (or the file server, when a whole node is gone) frees a lock when its process ends, SIGKILL included. Lock files with
  heartbeats need a time after which a lock is void: too short, and a busy process is robbed; too long, and its work waits for nobody;
- NFS, Lustre and GPFS know POSIX locks, but not everywhere those of `flock`; and 100,000 locked bytes are not 100,000 lock files;
- a forked child does not inherit them, so a stray grandchild cannot keep the lock of a dead process.

POSIX locks belong to a process, not to an open file, which has two consequences:
- the kernel grants a process a lock that it already has. So this module remembers which bytes this process holds and refuses them to
  a second `LockFile` of the same file, in other threads too;
- closing any descriptor of a file drops all locks of the process on it. So this module opens each file once and shares the descriptor
  among its users. Nothing else may open a lock file while a lock is held: it carries no content, and is not to be read or copied.
Where a file system pretends to lock, two processes may do the same work; whatever they write is written whole, under one name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tinymem.errors import UserError
from tinymem.runtime.files import disk_errors_named

POLL_SECONDS = 0.05
_SPAN = 1 << 62  # file offsets are signed 64-bit numbers
_Key = tuple[int, int]  # device and inode


@dataclass
class _Open:
    """A lock file of this process: its one descriptor, how many use it, and the bytes that they hold."""

    descriptor: int
    users: int = 0
    held: dict[int, LockFile] = field(default_factory=dict)


_files: dict[_Key, _Open] = {}
_mutex = threading.RLock()


def _forget_locks() -> None:
    """Start a forked child without locks: it has the parent's descriptors, but none of its locks."""
    global _mutex
    _mutex = threading.RLock()
    for file in _files.values():
        file.held.clear()


os.register_at_fork(after_in_child=_forget_locks)


class LockFile:
    """Named locks in one file; may be used by several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if it is missing, its folder too; `close` ends the use.

        Raises:
            UserError: it cannot be written.
        """
        self.path = path
        with disk_errors_named(path):
            self._key = _open(path)

    def take(self, name: str = "") -> bool:
        """Take the lock of a name; False if another process, or another user in this process, has it.

        Raises:
            UserError: the file system has no locks.
        """
        byte = _byte(name)
        with _mutex:
            file = _files[self._key]
            if byte in file.held:
                return False
            try:
                fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                raise UserError(f"expected a file system with POSIX locks at {self.path}: {error.strerror}; name another folder") from error
            file.held[byte] = self
        return True

    def release(self, name: str = "") -> None:
        """Free a lock that this object has taken.

        Raises:
            ValueError: it has not taken it.
        """
        byte = _byte(name)
        with _mutex:
            file = _files[self._key]
            if file.held.get(byte) is not self:
                raise ValueError(f"expected to free a lock that was taken, got '{name}' of {self.path}")
            del file.held[byte]
            fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, byte)

    def close(self) -> None:
        """Free all locks that this object has taken; the file itself is closed when nobody in this process uses it any more."""
        with _mutex:
            file = _files[self._key]
            for byte in [byte for byte, user in file.held.items() if user is self]:
                del file.held[byte]
                fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, byte)
            file.users -= 1
            if not file.users:
                os.close(file.descriptor)
                del _files[self._key]


@contextmanager
def locked(path: Path, name: str = "", *, wait: bool) -> Iterator[bool]:
    """Hold one lock of a file for a while; yields whether it was free. With `wait` it is waited for, and always held.

    Raises:
        UserError: the file system has no locks.
    """
    file = LockFile(path)
    try:
        while not (free := file.take(name)) and wait:
            time.sleep(POLL_SECONDS)  # a blocking call could not be interrupted on every file system
        yield free
    finally:
        file.close()


def is_taken(path: Path, name: str | None = None) -> bool:
    """Whether another process has the lock of a name, or of any name, of a file; no lock is in one that is missing or cannot be read.

    The lock is shared for an instant, which only a process that starts in this very instant could notice.
    """
    start, length = (0, 0) if name is None else (_byte(name), 1)
    with _mutex:
        if (key := _key_of(path)) is None:
            return False
        if key in _files:  # ours: to close another descriptor of it would free its locks
            return bool(_files[key].held)
        return _is_locked(path, start, length)


def _is_locked(path: Path, start: int, length: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder's name while it is made, beside it, so that of two processes that write it one is told at its start.

    Folders above it that are made for this and hold nothing at the end, as after an error, are removed again.

    Raises:
        UserError: another process has it, or nothing can be written there.
    """
    lock = writers_lock(folder)
    made = [parent for parent in lock.parents if not parent.exists()]
    try:
        with locked(lock, wait=False) as alone:
            if not alone:
                raise UserError(f"another process is writing {folder}; wait for it to end, or name another --out")
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def writers_lock(folder: Path) -> Path:
    """The lock that the sole writer of a folder holds."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.lock")


def _open(path: Path) -> _Key:
    """Use the one descriptor that this process has of a file; a file that was removed and made again is another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _mutex:
        key = _key_of(path)
        if key is None or key not in _files:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino)
            _files.setdefault(key, _Open(descriptor))  # a descriptor too many stays open: to close it would free the locks of the other
        _files[key].users += 1
        return key


def _key_of(path: Path) -> _Key | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _byte(name: str) -> int:
    """Byte of a name, from its hash. Two names that share a byte only wait for each other."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % _SPAN
