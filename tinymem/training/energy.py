"""Energy and carbon of a training run by the paper's equations 4 and 5 (`runtime.power`), of the shares that are charged to it.

`machine_share` of the CPUs and memory of each machine that the run is on, and `gpu_share` of each of its GPUs, are taken to be its own.

Only the hours are measured; every assumption is stored with the estimate. Where codecarbon is installed, it measures as well (`Meter`).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch

from tinymem.runtime.device import machines
from tinymem.runtime.json import JsonObject
from tinymem.runtime.power import Machine, gpu_watts_of

if TYPE_CHECKING:
    from tinymem.recipe.training import EnergySection


class MeasuredEnergy(TypedDict):
    """A measurement of codecarbon: kWh, kg of CO2, and the seconds that it covers."""

    kwh: float
    carbon_kg: float
    seconds: float


class EnergyEstimate(TypedDict):
    """Energy and carbon of a run, with everything that was assumed."""

    kwh: float
    carbon_kg: float
    hours: float
    watts: float
    assumed: JsonObject
    codecarbon: NotRequired[MeasuredEnergy]


def estimate(seconds: float, settings: EnergySection, *, gpu: str | None = None, gpus: int = 0, machines: int = 1) -> EnergyEstimate:
    """Total energy in kWh and carbon in kg of `seconds` on `gpus` GPUs of a name, with all assumptions."""
    gpu_watts = settings.gpu_watts if settings.gpu_watts is not None else gpu_watts_of(gpu)
    memory = settings.memory_gb if settings.memory_gb is not None else machine_memory_gb()
    charged, hours = machines * settings.machine_share, seconds / 3600
    machine = Machine(
        name=gpu or "cpu", cpu_usage=settings.cpu_usage, cpu_watts=charged * settings.cpu_watts, gpus=gpus * settings.gpu_share,
        gpu_usage=settings.gpu_usage, gpu_watts=gpu_watts, memory_gb=charged * memory, pue=settings.pue, carbon=settings.carbon_intensity,
    )  # fmt: skip
    counts = {"machines": machines, "gpus": gpus, "gpu_watts": gpu_watts if gpus else None, "memory_gb": memory}
    assumed = {**settings.model_dump(exclude={"country"}), **counts}
    kwh, carbon = machine.kilowatt_hours(hours), machine.kilograms(hours)
    return {"kwh": kwh, "carbon_kg": carbon, "hours": hours, "watts": machine.watts, "assumed": assumed}


def machine_memory_gb() -> float:
    """Memory of this machine in GB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def estimate_here(seconds: float, settings: EnergySection, device: torch.device, processes: int = 1) -> EnergyEstimate:
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

    def stop(self) -> MeasuredEnergy | None:
        """End the measurement; None without codecarbon."""
        if self._tracker is None:
            return None
        self._tracker.stop()
        data = self._tracker.final_emissions_data
        return {"kwh": data.energy_consumed, "carbon_kg": data.emissions, "seconds": data.duration}
