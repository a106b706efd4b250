"""Machines of the paper's Table 6 and of result rows, for the energy and carbon in Tables 6 to 9."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from tinymem.errors import UserError, did_you_mean
from tinymem.runtime.power import Machine, gpu_watts_of

# Table 6. The carbon intensities are not printed: they are those that take Table 7's energy to its carbon.
POLARIS = Machine("Polaris", 0.5, 225, 4, 1, 250, 512, 1.58, 396)
PERLMUTTER = Machine("Perlmutter", 0.5, 280, 4, 1, 300, 256, 1.58, 261)
RANGES = {"cpu_usage": (0, 1), "gpu_usage": (0, 1), "pue": (1, math.inf)}
"""Least and most of the fields that have other limits than 0 and infinity."""


def machine_of(device: str) -> Machine:
    """A guess at the machine behind a row's `device`: Polaris without GPUs for a processor, else the share of it that its GPUs have.

    A model that is spread over GPUs has their number in its rows: `2 x NVIDIA H100`.
    """
    if device.startswith("cpu"):
        return replace(POLARIS, name=device, gpus=0)
    several = re.match(r"(\d+) x ", device)
    gpus = int(several[1]) if several else 1
    share, watts = gpus / POLARIS.gpus, gpu_watts_of(device)
    return replace(
        POLARIS, name=device, gpus=gpus, gpu_watts=watts, cpu_watts=POLARIS.cpu_watts * share, memory_gb=POLARIS.memory_gb * share
    )


def load_machine(path: Path) -> Machine:
    """A machine from a YAML file with the fields of `Machine`; those left out are Polaris's.

    Raises:
        UserError: no such file, not YAML, an unknown field, or a value that is no number or out of range.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"expected a YAML file with a machine's fields at {path}, got: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"expected `field: number` lines in {path}, got {type(values).__name__}")
    known = [field.name for field in fields(Machine)]
    for key, value in values.items():
        if key not in known:
            raise UserError(f"unknown field '{key}' in {path}; {did_you_mean(str(key), known)}")
        low, high = RANGES.get(key, (0, math.inf))
        if key == "name":
            if not isinstance(value, str):
                raise UserError(f"expected text for name in {path}, got {value!r}; put it in quotes")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value == math.inf:
            most = "" if high == math.inf else f" and at most {high:g}"
            raise UserError(f"expected a number of at least {low:g}{most} for {key} in {path}, got {value!r}")
    return replace(POLARIS, **{"name": path.stem, **values})
