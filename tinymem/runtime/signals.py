"""Being told to stop: pre-emption signals, and the end of the process that started this one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they kill: Slurm and Kubernetes SIGTERM, Slurm's `--signal=USR1@60` the other."""
LIFELINE = "TINYMEM_LIFELINE"


@dataclass
class StopFlag:
    """Which signal has come, if any."""

    name: str | None = None


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Within, the signals only raise a flag, so that work can end where it is whole. Outside the main thread nothing changes."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def told(number: int, _frame: FrameType | None) -> None:
        flag.name = signal.Signals(number).name

    before = {number: signal.signal(number, told) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_lifeline() -> None:
    """If a supervisor started this process, behave as at SIGTERM when it is gone: then standard input ends."""
    if os.environ.pop(LIFELINE, None):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
