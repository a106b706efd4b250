"""Stop signals: pre-emption by a scheduler, Ctrl-C, a closed terminal, and the end of the process that started this one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tinymem.errors import Stopped
from tinymem.runtime.interrupts import INTERRUPTED_CODE

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""Signals that schedulers send before they kill (SIGTERM by Slurm and Kubernetes, SIGUSR1 by Slurm's `--signal=USR1@60`), and those of
Ctrl-C and of a terminal that is closed."""
LIFELINE = "TINYMEM_LIFELINE"


@dataclass
class StopFlag:
    """Name of the stop signal that has come, or None."""

    name: str | None = None

    def stopped(self, where: str) -> Stopped:
        """The end of work that has stopped in good order, in a place such as ` after epoch 3`."""
        code = INTERRUPTED_CODE if self.name == signal.SIGINT.name else 75
        return Stopped(f"stopped by {self.name or 'a signal to another process'}{where}; the same command goes on from here", code)


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Inside the context stop signals only set a flag, so that work can end in a consistent state; no effect outside the main thread.

    A second Ctrl-C ends it at once, as KeyboardInterrupt. Signals that are ignored, as under `nohup`, stay ignored.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def set_flag(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and flag.name:
            raise KeyboardInterrupt
        flag.name = signal.Signals(number).name

    before = {number: signal.signal(number, set_flag) for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN}
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
