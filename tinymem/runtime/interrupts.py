"""Ctrl-C while modules are imported. Imports next to nothing itself: what comes before it cannot be interrupted quietly."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

INTERRUPTED = "interrupted at once; the same command goes on from what is written"
INTERRUPTED_CODE = 130
IMPORTING = "<frozen importlib._bootstrap>"


def end_imports_quietly() -> None:
    """Let Ctrl-C end the process at once while a module is imported, when there is nothing to save and a traceback says nothing."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> None:
    try:
        os.write(2, f"tinymem: {INTERRUPTED}\n".encode())
    finally:  # the terminal may be closed
        os._exit(INTERRUPTED_CODE)
