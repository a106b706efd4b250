"""Table 1 on the shipped checkpoints: which runs its recipes have, and how their models are named."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

import tinymem
from tinymem.recipe.paper import FINETUNINGS, GRID
from tinymem.recipe.sweep import load_sweep, parse_sweep
from tinymem.results.row import MeasuredRow
from tinymem.results.store import read_rows
from tinymem.runs.pipeline import Run
from tinymem.sweep.costs import size_of
from tinymem.sweep.run import Sweep, open_sweep
from tinymem.sweep.task import Worker

SHIPPED = ["math-mult-noise-4l-s0", "math-mult-noise-4l-s1", "math-mult-noise-4l-s3"]
SHIPPED += [name.replace("noise", "backdoor") for name in SHIPPED]


def planned(name: str, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Sweep:
    monkeypatch.chdir(ROOT)
    return open_sweep(load_sweep(ROOT / "recipes" / "paper" / name), out=out, runs=out, device_type="cuda", **options)


def test_the_recipe_has_every_method_on_the_six_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = planned("table1.yaml", tmp_path, monkeypatch)
    assert [model.run for model in sweep.models] == SHIPPED and sweep.plan.runs == 822
    runs = Counter(group.method for group in sweep.plan.groups for _ in group.runs)
    whole = {method: 6 * GRID[method] for method in GRID if method not in ("greedy", "subnet", "balanced-subnet")}
    assert {method: runs[method] for method in whole} == whole
    assert (runs["greedy"], runs["subnet"], runs["balanced-subnet"]) == (6 * 4, 6 * 18, 6 * 30)
    assert {runs[method] for method in (*FINETUNINGS, "npo", "simnpo", "gradient-ascent", "nemo")} == {6}


def test_table_2_has_the_same_methods_on_the_language_models_by_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, first = (planned(f"table{number}.yaml", tmp_path, monkeypatch) for number in (2, 1))
    assert [model.run for model in sweep.models] == ["lang-wiki-noise-4l-s0", "lang-wiki-backdoor-4l-s0"]
    assert sweep.recipe.search is not None and {g.method for g in sweep.plan.groups} == {g.method for g in first.plan.groups}
    assert [model.corpus_sha256[:8] for model in sweep.models] == ["abac1964", "457008a9"], "of the shipped samples, not of the whole text"
    assert [size_of(model.basis).clean for model in sweep.models if model.basis] == [8000, 8000], "estimates go by the sample too"


def test_a_checkpoint_outside_a_run_has_its_own_name(tiny_run: Run, tmp_path: Path) -> None:
    """Those of one folder would all be named by that folder, and reports would take them for one model's."""
    for name in ("mine", "yours"):
        shutil.copytree(tiny_run.checkpoint, tmp_path / "models" / name)
    recipe = parse_sweep({"checkpoints": [str(tmp_path / "models" / "*"), str(tiny_run.path)], "methods": "act"})
    assert [model.run for model in open_sweep(recipe, out=tmp_path, runs=tmp_path, device_type="cpu").models] == ["mine"]
    recipe = parse_sweep({"checkpoints": str(tiny_run.path), "methods": "act"})
    assert open_sweep(recipe, out=tmp_path, runs=tmp_path, device_type="cpu").models[0].run == tiny_run.path.name


def test_the_second_recipe_has_the_same_models_as_the_published_code_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = planned("table1-reference.yaml", tmp_path, monkeypatch)
    assert [model.run for model in sweep.models] == SHIPPED and sweep.plan.runs == 150
    assert {group.model.identity.protocol for group in sweep.plan.groups} == {"reference"}


def test_a_sweep_measures_under_another_protocol(tiny_run: Run, tmp_path: Path) -> None:
    """The corpus stays that of the model's own protocol; what is measured, and which rows a method is given, are the other's."""

    def rows(protocol: str | None) -> list[MeasuredRow]:
        recipe = parse_sweep({"checkpoints": str(tiny_run.path), "methods": "act", "grid": "none", "protocol": protocol})
        sweep = open_sweep(recipe, out=tmp_path / str(protocol), runs=tmp_path, device_type="cpu")
        worker = Worker(sweep.folder, "cpu")
        for group in sweep.plan.groups:
            worker.work(group, lambda _: None)
        return read_rows(sweep.folder)

    own, reference = rows(None), rows("reference")
    assert {row.protocol for row in own} == {"paper"} and {row.protocol for row in reference} == {"reference"}
    assert {row.status for row in [*own, *reference]} == {"ok"} and not {row.id for row in own} & {row.id for row in reference}
    assert {row.corpus_sha256 for row in own} == {row.corpus_sha256 for row in reference}
    assert sum(row.rows_holdout or 0 for row in reference) == 0 < sum(row.rows_holdout or 0 for row in own)
    assert [row.performance_before for row in own] != [row.performance_before for row in reference]


def test_a_fine_tunings_row_says_whose_optimizer_state_it_used(tiny_run: Run) -> None:
    subject = tinymem.subject_of_corpus(tiny_run.model(), tiny_run.corpus(), tiny_run.recipe)
    assert tinymem.mitigate(subject, "finetune-clean", {"epochs": 1}).rows[0].optimizer_state is False
    assert "optimizer_state" not in tinymem.mitigate(subject, "act", {}).rows[0].as_dict()
