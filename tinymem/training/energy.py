"""What a run's energy and carbon come to, by the paper's equations 4 and 5 (appendix A.6, after Bouza et al. 2023) and the shares charged.

    machine [W] = machine_share * (cpu_usage * cpu_watts + 0.3725 W/GB * memory_gb)
    energy [Wh] = hours * (machine + gpus * gpu_share * gpu_usage * gpu_watts) * PUE
    carbon [g]  = energy / 1000 * carbon_intensity

CPUs and memory count once for each machine that the run is on.

An estimate from assumptions, all of which stand beside it: nothing is measured but the hours. Where codecarbon is installed, it measures
beside (`Meter`).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from tinymem.runtime.device import machines

if TYPE_CHECKING:
    from tinymem.recipe.training import EnergySection

WATTS_PER_GB = 0.3725
# Thermal design power in watts by a part of the GPU's name, the first that fits.
GPU_WATTS = {
    "GH200": 900, "B200": 1000, "H200": 700, "H100 PCIe": 350, "H100 NVL": 400, "H100": 700, "A100-PCIE": 250, "A100": 400,
    "V100-PCIE": 250, "V100": 300, "L40": 300, "L4": 72, "A10": 150, "T4": 70, "A6000": 300, "4090": 450, "3090": 350,
}  # fmt: skip
UNKNOWN_GPU = 300.0


def estimate(seconds: float, settings: EnergySection, *, gpu: str | None = None, gpus: int = 0, machines: int = 1) -> dict[str, Any]:
    """Energy in kWh and carbon in kg of so many seconds on `gpus` GPUs of a name, all told, with everything that was assumed."""
    gpu_watts = settings.gpu_watts if settings.gpu_watts is not None else gpu_watts_of(gpu)
    memory = settings.memory_gb if settings.memory_gb is not None else machine_memory_gb()
    machine_watts = machines * settings.machine_share * (settings.cpu_usage * settings.cpu_watts + WATTS_PER_GB * memory)
    watts = (machine_watts + gpus * settings.gpu_share * settings.gpu_usage * gpu_watts) * settings.pue
    kwh = seconds / 3600 * watts / 1000
    counts = {"machines": machines, "gpus": gpus, "gpu_watts": gpu_watts if gpus else None, "memory_gb": memory}
    assumed = {**settings.model_dump(exclude={"country"}), **counts}
    return {"kwh": kwh, "carbon_kg": kwh * settings.carbon_intensity / 1000, "hours": seconds / 3600, "watts": watts, "assumed": assumed}


def gpu_watts_of(name: str | None) -> float:
    """Thermal design power of a GPU by its name."""
    return next((float(watts) for part, watts in GPU_WATTS.items() if name and part.lower() in name.lower()), UNKNOWN_GPU)


def machine_memory_gb() -> float:
    """All memory of this machine."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def estimate_here(seconds: float, settings: EnergySection, device: torch.device, processes: int = 1) -> dict[str, Any]:
    """The estimate for a device of this machine, one for each process, and for other machines like it that train along."""
    if device.type != "cuda":
        return estimate(seconds, settings, machines=machines())
    return estimate(seconds, settings, gpu=torch.cuda.get_device_name(device), gpus=processes, machines=machines())


class Meter:
    """codecarbon's measurement of this process, where that is installed: offline, and of this start of the run alone."""

    def __init__(self, country: str) -> None:
        self._tracker: Any = None
        if find_spec("codecarbon"):
            from codecarbon import OfflineEmissionsTracker

            quiet = {"save_to_file": False, "log_level": "error", "allow_multiple_runs": True}
            self._tracker = OfflineEmissionsTracker(country_iso_code=country, **quiet)
            self._tracker.start()

    def stop(self) -> dict[str, Any]:
        """What it measured; empty without codecarbon."""
        if self._tracker is None:
            return {}
        self._tracker.stop()
        data = self._tracker.final_emissions_data
        return {"codecarbon": {"kwh": data.energy_consumed, "carbon_kg": data.emissions, "seconds": data.duration}}
