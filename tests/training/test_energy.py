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
from tinymem.report.energy import machine_of
from tinymem.runtime.power import CARDS, card_of, gpu_watts_of
from tinymem.training import energy, loop
from tinymem.training.energy import estimate, estimate_here
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


GPUS = {
    "NVIDIA GB300": 1400, "NVIDIA B300 SXM6 AC": 1400, "NVIDIA GB200": 1200, "NVIDIA B200": 1000, "NVIDIA GH200 480GB": 900,
    "NVIDIA H200": 700, "NVIDIA H200 NVL": 600, "NVIDIA H100 80GB HBM3": 700, "NVIDIA H100 PCIe": 350, "NVIDIA H100 NVL": 400,
    "NVIDIA H800": 700, "NVIDIA H800 PCIe": 350, "NVIDIA A100-SXM4-40GB": 400, "NVIDIA A100-SXM4-80GB": 400, "NVIDIA A100-PCIE-40GB": 250,
    "NVIDIA A100 80GB PCIe": 300, "Tesla V100-SXM2-16GB": 300, "Tesla V100-SXM3-32GB": 350, "Tesla V100-PCIE-16GB": 250,
    "Tesla V100S-PCIE-32GB": 250, "Tesla P100-SXM2-16GB": 300, "Tesla P100-PCIE-16GB": 250, "NVIDIA L40": 300, "NVIDIA L40S": 350,
    "NVIDIA L4": 72, "NVIDIA A40": 300, "NVIDIA A30": 165, "NVIDIA A10G": 300, "NVIDIA A10": 150, "Tesla T4": 70,
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": 600, "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": 300,
    "NVIDIA RTX 6000 Ada Generation": 300, "NVIDIA RTX A6000": 300, "NVIDIA RTX A5000": 230, "NVIDIA GeForce RTX 5090": 575,
    "NVIDIA GeForce RTX 4090": 450, "NVIDIA GeForce RTX 3090": 350, "NVIDIA GeForce RTX 3090 Ti": 450,
}  # fmt: skip


@pytest.mark.parametrize(("name", "watts"), [*GPUS.items(), ("Own", 300), ("NVIDIA T400", 300), ("NVIDIA L400", 300)])
def test_watts_of_a_gpu_and_one_energy_of_a_checkpoint_and_of_the_tables(name: str, watts: float) -> None:
    machine = machine_of(name)
    assert machine.gpu_watts == gpu_watts_of(name) == watts
    settings = EnergySection(
        cpu_usage=machine.cpu_usage, cpu_watts=machine.cpu_watts, memory_gb=machine.memory_gb, carbon_intensity=machine.carbon
    )
    found = estimate(3600 * 7, settings, gpu=name, gpus=1)
    assert (found["kwh"], found["carbon_kg"]) == pytest.approx((machine.kilowatt_hours(7), machine.kilograms(7)), rel=1e-12)


def test_every_card_is_a_name_of_the_test_and_has_a_source() -> None:
    found = {card_of(name) for name in GPUS}
    assert [card.words for card in CARDS if card not in found] == []
    assert all(len(card.source) > 10 for card in CARDS)


@pytest.mark.training
def test_a_run_says_what_it_took(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1", "training.energy.cpu_watts=1000", "training.energy.pue=2"])
    trained = train(recipe, make_corpus(recipe), tmp_path)
    found = trained.facts.energy
    assert found["kwh"] == pytest.approx(found["hours"] * found["watts"] / 1000) and found["hours"] >= trained.seconds / 3600
    assert found["watts"] > 2 * 0.5 * 1000 and found["assumed"]["cpu_watts"] == 1000 and found["assumed"]["memory_gb"] > 0
    assert recipe.run_id() == load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1"]).run_id()


@pytest.mark.training
def test_the_first_measurement_takes_energy_too(tmp_path: Path) -> None:
    """Busy is what is spent in steps and measurements, also before the first step."""
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=0"])
    assert train(recipe, make_corpus(recipe), tmp_path).facts.energy["kwh"] > 0


@pytest.mark.training
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
    assert facts.energy["codecarbon"] == {"kwh": 0.5, "carbon_kg": 0.2, "seconds": 3.0} and facts.energy["kwh"] > 0
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


@pytest.mark.training
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
    steps = [point.step for point in trained.curve]
    assert found["accuracy"] == pytest.approx({point.step: point.accuracy for point in trained.curve})
    assert set(found["memorized/noise/share"]) == set(steps) and set(found["train_loss"]) == set(steps[1:])
    assert recipe.run_id() == load_recipe(QUICKSTART, overrides[:-1]).run_id()


def test_scalars() -> None:
    point = {"a": 1, "b": {"c": 0.5, "d": {"e": None, "f": True}}, "g": "x"}
    assert scalars(point) == {"a": 1.0, "b/c": 0.5}


@pytest.mark.training
def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.tensorboard=true"])
    with pytest.raises(UserError, match=r"not installed; try: pip install 'tinymem\[tensorboard\]'"):
        train(recipe, make_corpus(recipe), tmp_path)
