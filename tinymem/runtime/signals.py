"""Stop signals: pre-emption by a scheduler, and the end of the process that started this one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that schedulers send before they kill: SIGTERM by Slurm and Kubernetes, SIGUSR1 by Slurm's `--signal=USR1@60`."""
LIFELINE = "TINYMEM_LIFELINE"


@dataclass
class StopFlag:
    """Name of the stop signal that has come, or None."""

    name: str | None = None


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Inside the context stop signals only set a flag, so that work can end in a consistent state; no effect outside the main thread."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def set_flag(number: int, _frame: FrameType | None) -> None:
        flag.name = signal.Signals(number).name

    before = {number: signal.signal(number, set_flag) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_lifeline() -> None:
    """Send SIGTERM to this process when the supervisor that started it ends, which closes standard input; without one, do nothing."""
    if os.environ.pop(LIFELINE, None):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
