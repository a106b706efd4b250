"""NVIDIA's Multi-Process Service, with which kernels of several processes run on a GPU side by side instead of in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tinymem.errors import UserError

CONTROL = "nvidia-cuda-mps-control"


@contextmanager
def mps_server() -> Iterator[dict[str, str]]:
    """Run a private MPS server; yields the environment variables that its clients need.

    Raises:
        UserError: MPS is not installed on this machine, or does not start.
    """
    if shutil.which(CONTROL) is None:
        raise UserError(f"expected {CONTROL} for --mps, found none; leave --mps out")
    with tempfile.TemporaryDirectory(prefix="mps-") as place:
        client = {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}
        # The server sees every GPU, so that clients name them as without it.
        server = {**{name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}, **client}
        started = subprocess.run([CONTROL, "-d"], env=server, capture_output=True, text=True, check=False)
        if started.returncode:
            raise UserError(f"{CONTROL} did not start: {' '.join((started.stderr or started.stdout).split())}; leave --mps out")
        try:
            yield client
        finally:
            subprocess.run([CONTROL], input="quit -t 5\n", text=True, env=server, capture_output=True, check=False)
