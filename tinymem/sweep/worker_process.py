"""A worker process in its slot: started when there is work, watched, killed, and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from textwrap import shorten

from tinymem.runtime.device import python_path
from tinymem.runtime.slots import Slot
from tinymem.sweep.work import Event, ModelKey, WorkUnit

LOGS = "logs"
START_SECONDS = 600.0
"""Seconds granted to import torch and load a model, in addition to the limit of a run."""
LAST_WORDS = 400
"""Most characters of a dead worker's last line that are told; they end with a whole word."""


@dataclass
class WorkerProcess:
    """The worker process of one slot, and the runs that it is working on. Its log lies in `folder`."""

    folder: Path
    slot: Slot
    plugins: tuple[Path, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    connection: Connection | None = None
    group: WorkUnit | None = None
    charged: list[str] = field(default_factory=list)
    since: float = 0.0
    spent: float = 0.0
    model_key: ModelKey | None = None
    hung_up: bool = False

    def give(self, group: WorkUnit, folder: Path) -> None:
        """Hand a group of the sweep in `folder` to the worker, which is started if there is none."""
        if self.is_dead():  # since its last group
            self.stop()
        if self.process is None:
            self._start()
        assert self.connection is not None
        self.group, self.model_key = group, group.model_key
        self.charge([run.id for run in group.runs], -START_SECONDS)
        with suppress(OSError):  # it has died meanwhile: the supervisor will see
            self.connection.send_bytes(json.dumps([str(folder), group.to_json()]).encode())

    def charge(self, runs: list[str], spent: float) -> None:
        """Charge the time from now on to these runs, which have cost `spent` seconds before."""
        self.charged, self.since, self.spent = runs, time.monotonic(), spent

    @property
    def seconds(self) -> float:
        """Seconds that the runs under way have cost so far."""
        return self.spent + time.monotonic() - self.since

    def events(self) -> list[Event]:
        """Events that the worker has sent since the last call."""
        found: list[Event] = []
        try:
            while self.connection is not None and self.connection.poll():
                found.append(json.loads(self.connection.recv_bytes()))
        except (EOFError, OSError):
            self.hung_up = True
        return found

    def is_dead(self) -> bool:
        """Whether the worker was started and has ended, or has closed its socket."""
        return self.process is not None and (self.hung_up or self.process.poll() is not None)

    def resident_mb(self) -> float:
        """Resident memory of the worker in MiB; 0 where the system does not report it."""
        if self.process is None:
            return 0.0
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> str:
        """Kill the worker, with all that it has started, and say how it ended."""
        if self.process is None:
            return ""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        if self.connection is not None:
            self.connection.close()
        words = self._last_words()
        self.process, self.connection, self.group, self.model_key = None, None, None, None
        return (f"signal {-code}" if code < 0 else f"exit code {code}") + (f": {words}" if words else "")

    @property
    def log(self) -> Path:
        """File of the worker's standard output and error."""
        return self.folder / LOGS / f"{socket.gethostname()}-{os.getpid()}-{self.slot.name}.log"

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        words = [self.slot.device, str(os.getpid()), str(theirs.fileno()), *map(str, self.plugins)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tinymem.sweep.child", *words],  # -P: no file of the working directory replaces a library
                env={**os.environ, **self.slot.environment, "PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a separate process group, to be killed as one; and Ctrl-C does not reach it
            )
        theirs.close()
        self.hung_up = False
        self.connection = Connection(ours.detach())

    def _last_words(self) -> str:
        """The last line of the log, which is removed: of a traceback the error, with files named without their folders."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace").strip()
            self.log.unlink()
        except OSError:
            return ""
        last = next((line for line in reversed(text.splitlines()) if line.strip() and not line[0].isspace()), "")
        return shorten(re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", last), LAST_WORDS, placeholder=" ...")


def remove_stale_logs(folder: Path) -> None:
    """Delete the logs of this machine's supervisors that were killed."""
    for path in (folder / LOGS).glob(f"{socket.gethostname()}-*.log"):
        pid = path.stem.split("-")[-2]
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            path.unlink(missing_ok=True)
        except PermissionError:
            continue
