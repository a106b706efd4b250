"""Energy and carbon by the paper's equations, and metrics for TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import QUICKSTART, SMALLER, Killed, die_after_first_save

from tinymem.data.build import make_corpus
from tinymem.errors import UserError
from tinymem.recipe.recipe import load_recipe
from tinymem.recipe.training import EnergySection
from tinymem.training import energy, loop
from tinymem.training.energy import estimate, estimate_here, gpu_watts_of
from tinymem.training.loop import train
from tinymem.training.tensorboard import scalars


@pytest.mark.parametrize(  # tables 6 and 7 of the paper
    ("machine", "hours", "kwh", "kilograms"),
    [
        ({"cpu_watts": 225, "gpu_watts": 250, "memory_gb": 512, "carbon_intensity": 396}, 1116, 2297, 910),
        ({"cpu_watts": 225, "gpu_watts": 250, "memory_gb": 512, "carbon_intensity": 396}, 6251, 12_871, 5097),
        ({"cpu_watts": 280, "gpu_watts": 300, "memory_gb": 256, "carbon_intensity": 261}, 726, 1647, 430),
    ],
)
def test_the_papers_figures(machine: dict[str, float], hours: float, kwh: float, kilograms: float) -> None:
    found = estimate(3600 * hours, EnergySection(**machine), gpus=4)
    assert found["kwh"] == pytest.approx(kwh, rel=1e-3) and found["carbon_kg"] == pytest.approx(kilograms, rel=2e-3)
    assert found["hours"] == pytest.approx(hours) and found["assumed"]["pue"] == 1.58 and found["assumed"]["gpus"] == 4


def test_shares_and_machines_without_gpus() -> None:
    settings = EnergySection(cpu_watts=100, cpu_usage=1, memory_gb=0, pue=1, carbon_intensity=500)
    found = estimate(3600, settings)
    assert found["kwh"] == pytest.approx(0.1) and found["carbon_kg"] == pytest.approx(0.05) and found["assumed"]["gpu_watts"] is None
    shared = settings.model_copy(update={"machine_share": 0.25, "gpu_share": 0.5, "gpu_watts": 200.0})
    assert estimate(3600, shared, gpus=2)["watts"] == pytest.approx(0.25 * 100 + 2 * 0.5 * 200)


def test_every_machine_has_cpus_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, cpu = EnergySection(cpu_watts=100, cpu_usage=1, memory_gb=100, pue=1), torch.device("cpu")
    alone = estimate_here(3600, settings, cpu)
    assert alone["watts"] == pytest.approx(137.25)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert estimate_here(3600, settings, cpu, 8)["watts"] == pytest.approx(137.25)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    both = estimate_here(3600, settings, cpu, 8)
    assert both["watts"] == pytest.approx(2 * 137.25) and both["assumed"]["machines"] == 2
    assert estimate(3600, settings, gpu="Tesla T4", gpus=8, machines=2)["watts"] == pytest.approx(2 * 137.25 + 8 * 70)


def test_gpus_by_name() -> None:
    names = [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 PCIe",
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA L40S",
        "Tesla T4",
        "Own",
    ]
    assert [gpu_watts_of(name) for name in names] == [700, 350, 400, 250, 300, 70, 300]


def test_a_run_says_what_it_took(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1", "training.energy.cpu_watts=1000", "training.energy.pue=2"])
    trained = train(recipe, make_corpus(recipe), tmp_path)
    found = trained.facts["energy"]
    assert found["kwh"] == pytest.approx(found["hours"] * found["watts"] / 1000) and found["hours"] >= trained.seconds / 3600
    assert found["watts"] > 2 * 0.5 * 1000 and found["assumed"]["cpu_watts"] == 1000 and found["assumed"]["memory_gb"] > 0
    assert recipe.run_id() == load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1"]).run_id()


def test_the_first_measurement_takes_energy_too(tmp_path: Path) -> None:
    """Busy is what is spent in steps and measurements, also before the first step."""
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=0"])
    assert train(recipe, make_corpus(recipe), tmp_path).facts["energy"]["kwh"] > 0


def test_codecarbon_measures_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Tracker:
        final_emissions_data = SimpleNamespace(energy_consumed=0.5, emissions=0.2, duration=3.0)

        def __init__(self, **options: Any) -> None:
            self.options, self.calls = options, []
            made.append(self)

        def start(self) -> None:
            self.calls.append("start")

        def stop(self) -> None:
            self.calls.append("stop")

    module: Any = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = Tracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setattr(energy, "find_spec", lambda name: name == "codecarbon")
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1"])
    facts = train(recipe, make_corpus(recipe), tmp_path / "1").facts
    assert facts["energy"]["codecarbon"] == {"kwh": 0.5, "carbon_kg": 0.2, "seconds": 3.0} and facts["energy"]["kwh"] > 0
    monkeypatch.setattr(loop, "batch_loss", lambda model, ids: model(ids) * float("nan"))
    with pytest.raises(UserError):
        train(recipe, make_corpus(recipe), tmp_path / "2")
    assert [tracker.calls for tracker in made] == [["start", "stop"]] * 2
    assert all(t.options["country_iso_code"] == "USA" and t.options["save_to_file"] is False for t in made)


def events(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: {event.step: event.value for event in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALLER, "training.epochs=3", "training.evaluate_every=1", "training.checkpoint_every=2", "training.tensorboard=true"]
    recipe = load_recipe(QUICKSTART, overrides)
    corpus = make_corpus(recipe)
    die_after_first_save(monkeypatch)
    with pytest.raises(Killed):
        train(recipe, corpus, tmp_path)
    monkeypatch.undo()
    trained = train(recipe, corpus, tmp_path)
    found = events(tmp_path / "tensorboard")
    steps = [point["step"] for point in trained.curve]
    assert found["accuracy"] == pytest.approx({point["step"]: point["accuracy"] for point in trained.curve})
    assert set(found["memorized/noise/share"]) == set(steps) and set(found["train_loss"]) == set(steps[1:])
    assert recipe.run_id() == load_recipe(QUICKSTART, overrides[:-1]).run_id()


def test_scalars() -> None:
    point = {"a": 1, "b": {"c": 0.5, "d": {"e": None, "f": True}}, "g": "x"}
    assert scalars(point) == {"a": 1.0, "b/c": 0.5}


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.tensorboard=true"])
    with pytest.raises(UserError, match=r"not installed; try: pip install 'tinymem\[tensorboard\]'"):
        train(recipe, make_corpus(recipe), tmp_path)
