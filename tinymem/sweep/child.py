"""A worker process: receives work units (groups of runs) from its supervisor, one at a time, and reports their events.

`python -m tinymem.sweep.child DEVICE PARENT DESCRIPTOR PLUGIN...`; the descriptor is a socket to the supervisor, JSON both ways. With each
unit comes the folder of its sweep: the rungs of a search are sweeps of their own.
It ends when the supervisor does: the kernel kills it (Linux), and a thread sees the socket close (elsewhere).
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work until the supervisor closes the socket or dies."""
    device, parent, descriptor, *plugins = sys.argv[1:]
    die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the supervisor, which ends us
    os.set_inheritable(int(descriptor), False)
    connection = Connection(int(descriptor))
    groups: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, groups), daemon=True).start()

    import torch

    from tinymem.errors import CouldNotWrite
    from tinymem.registry import load_plugin
    from tinymem.sweep.task import Worker
    from tinymem.sweep.work import Event, WorkUnit

    if device == "cpu":
        torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(Path(plugin))
    worker: Worker | None = None

    def tell(event: Event) -> None:
        connection.send_bytes(json.dumps(event).encode())

    while True:
        folder, unit = json.loads(groups.get())
        try:
            if worker is None:
                worker = Worker(Path(folder), device)
            worker.move_to(Path(folder))
            worker.work(WorkUnit.of_json(unit), tell)
        except CouldNotWrite as error:
            tell({"event": "unwritable", "message": str(error)})


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request
        os._exit(1)


def _listen(connection: Connection, groups: queue.Queue[bytes]) -> None:
    try:
        while True:
            groups.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
