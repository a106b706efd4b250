"""Locks between processes and inside one, and no other kind of lock in the package."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import tinymem
from tinymem.errors import UserError
from tinymem.runtime import locks
from tinymem.runtime.locks import LockFile, locked

HOLDER = """
import sys
from pathlib import Path
from tinymem.runtime.locks import LockFile
file = LockFile(Path(sys.argv[1]))
print(*[file.take(name) for name in sys.argv[2:]], flush=True)
for line in sys.stdin:
    file.release(line.strip())
    print("released", flush=True)
"""


@contextmanager
def holder(path: Path, *names: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process that takes locks, and frees those whose names it reads; with what it got."""
    command = [sys.executable, "-c", HOLDER, str(path), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


def free(path: Path, name: str) -> bool:
    """Whether another process would get a lock."""
    with holder(path, name) as (_, [answer]):
        return answer == "True"


@pytest.mark.processes
def test_two_processes_exclude_each_other_name_by_name(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "locks"
    with holder(path, "one", "two", "one") as (process, taken):
        assert taken == ["True", "True", "False"]
        file = LockFile(path)
        assert not file.take("one") and not file.take("two") and file.take("three")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("two\n")
        process.stdin.flush()
        assert process.stdout.readline() == "released\n"
        assert file.take("two") and not file.take("one")
        process.kill()
        process.wait()
        assert file.take("one"), "a killed process frees its locks"
        file.close()


@pytest.mark.processes
def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with holder(path, "") as (process, _):
        threading.Timer(0.3, process.kill).start()
        started = time.monotonic()
        with locked(path, wait=False) as alone:
            assert not alone
        with locked(path, wait=True) as alone:
            assert alone and time.monotonic() - started > 0.2


@pytest.mark.processes
def test_one_process_excludes_itself(tmp_path: Path) -> None:
    """The kernel would grant the same lock again; and closing a second descriptor would free the first one's."""
    path = tmp_path / "locks"
    (tmp_path / "link").symlink_to(tmp_path)
    with locked(path, wait=False) as alone:
        assert alone
        for same in (path, tmp_path / "link" / "locks"):
            with locked(same, wait=False) as again:
                assert not again
            with locked(same, "other", wait=False) as other:
                assert other
            with ThreadPoolExecutor() as pool:
                assert not pool.submit(LockFile(same).take).result()
        assert not free(path, ""), "opened and closed again in this process, it is locked still"
    assert free(path, "")


@pytest.mark.processes
def test_only_who_has_taken_a_lock_frees_it(tmp_path: Path) -> None:
    one, other = LockFile(tmp_path / "locks"), LockFile(tmp_path / "locks")
    assert one.take("a")
    for file in (other, one):
        with pytest.raises(ValueError, match="that was taken"):
            file.release("b" if file is one else "a")
    other.close()
    assert not free(tmp_path / "locks", "a")
    one.close()
    assert free(tmp_path / "locks", "a")


@pytest.mark.processes
def test_a_file_that_was_made_again_is_another(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with locked(path, wait=False):
        path.unlink()
        with locked(path, wait=False) as alone:
            assert alone and not free(path, "")


def test_all_is_closed_at_the_end(tmp_path: Path) -> None:
    before = dict(locks._files)
    with locked(tmp_path / "locks", wait=False), locked(tmp_path / "locks", "b", wait=False):
        assert len(locks._files) == len(before) + 1
    assert locks._files == before


@pytest.mark.processes
def test_a_forked_child_has_no_lock_and_takes_none_away(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with locked(path, wait=False):
        child = os.fork()
        if not child:  # it may not use pytest's machinery
            file = LockFile(path)
            os._exit(int(file.take()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not free(path, "")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    with pytest.raises(UserError, match=r"POSIX locks at .*locks: No locks available"), locked(tmp_path / "locks", wait=True):
        pass


def test_nothing_else_locks() -> None:
    """`flock` is not to be had on every shared file system; a second way of POSIX locks would free the first one's."""
    package = Path(tinymem.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("import fcntl", "fcntl.", "flock("))
    }
    assert users == {"runtime/locks.py"}
