"""Energy and carbon of computing time: the paper's equations 4 and 5 with the parameters of its Table 6."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from tinymem.errors import UserError, did_you_mean

WATTS_PER_GB = 0.3725  # of memory


@dataclass(frozen=True)
class Machine:
    """A node, as equation 4 sees it.

    Attributes:
        name: readable.
        cpu_usage: share of the processor's power that is drawn, in [0, 1].
        cpu_watts: thermal design power of the processor.
        gpus: number of GPUs.
        gpu_usage: share of their power that is drawn, in [0, 1].
        gpu_watts: thermal design power of a GPU.
        memory_gb: memory of the node.
        pue: power usage effectiveness of the building, at least 1.
        carbon: grams of CO2 per kWh, the CI of equation 5.
    """

    name: str
    cpu_usage: float
    cpu_watts: float
    gpus: float
    gpu_usage: float
    gpu_watts: float
    memory_gb: float
    pue: float
    carbon: float

    def kilowatt_hours(self, node_hours: float) -> float:
        """Equation 4, in kWh."""
        watts = self.cpu_usage * self.cpu_watts + self.gpus * self.gpu_usage * self.gpu_watts + WATTS_PER_GB * self.memory_gb
        return node_hours * watts * self.pue / 1000

    def kilograms(self, node_hours: float) -> float:
        """Equation 5, in kg of CO2."""
        return self.kilowatt_hours(node_hours) * self.carbon / 1000


# Table 6. The carbon intensities are not printed: they are those that take Table 7's energy to its carbon.
POLARIS = Machine("Polaris", 0.5, 225, 4, 1, 250, 512, 1.58, 396)
PERLMUTTER = Machine("Perlmutter", 0.5, 280, 4, 1, 300, 256, 1.58, 261)
# Thermal design power in W of a GPU whose name holds the word; the first that fits.
GPU_WATTS = {"GH200": 700, "H200": 700, "H100": 700, "A100": 400, "V100": 300, "L40": 350, "L4": 72, "T4": 70, "RTX": 350}
UNKNOWN_GPU = 400.0


def machine_of(device: str) -> Machine:
    """A guess at the machine behind a row's `device`: Polaris without GPUs for a processor, else one GPU's share of it with that GPU."""
    if device.startswith("cpu"):
        return replace(POLARIS, name=device, gpus=0)
    watts = next((watts for word, watts in GPU_WATTS.items() if word in device), UNKNOWN_GPU)
    share = 1 / POLARIS.gpus
    return replace(POLARIS, name=device, gpus=1, gpu_watts=watts, cpu_watts=POLARIS.cpu_watts * share, memory_gb=POLARIS.memory_gb * share)


def load_machine(path: Path) -> Machine:
    """A machine from a YAML file with the fields of `Machine`; those left out are Polaris's.

    Raises:
        UserError: no such file, not YAML, an unknown field, or a value that is no number.
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
        if key != "name" and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise UserError(f"expected a number of at least 0 for {key} in {path}, got {value!r}")
    return replace(POLARIS, **{"name": path.stem, **values})
