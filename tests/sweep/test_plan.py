"""Which runs a sweep has: grids, exclusions, ids, shards, and the paper's 113,160."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, tinymem
from safetensors.torch import load_file, save_file

from tinymem.errors import UserError
from tinymem.models.metadata import Metadata, read_metadata
from tinymem.models.weights import WEIGHTS
from tinymem.recipe.recipe import Recipe, load_matrix, load_recipe, parse_recipe
from tinymem.recipe.sizes import planned_parameters
from tinymem.recipe.sweep import load_sweep, parse_sweep
from tinymem.results.checkpoint_columns import epoch_of, stored_parameters
from tinymem.results.columns import MODEL_COLUMNS, pick
from tinymem.results.model_columns import family_of, model_columns
from tinymem.results.store import read_rows
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import write_json
from tinymem.sweep.plan import expand, make_plan
from tinymem.sweep.run import Sweep, open_sweep
from tinymem.sweep.task import Worker
from tinymem.sweep.work import Event, WorkUnit

PAPER = ROOT / "recipes" / "paper"
SWEEPS = [ROOT / "recipes" / "sweep-quickstart.yaml", *sorted(PAPER.glob("unlearning-*.yaml"))]


def planned(run: Run, folder: Path, *, only: Any = (), shard: str | None = None, **keys: Any) -> Sweep:
    recipe = parse_sweep({"checkpoints": str(run.checkpoint), "methods": "act", **keys})
    return open_sweep(recipe, out=folder / "sweep", runs=folder, device_type="cpu", only=only, shard=shard)


def configs(sweep: Sweep) -> list[tuple[Any, ...]]:
    return [
        (g.method, g.seed, *(run.config[k] for k in ("ratio", "epochs") if k in run.config)) for g in sweep.plan.groups for run in g.runs
    ]


@pytest.mark.training
def test_rows_of_a_sweep_have_the_family_of_their_models_run(tiny_run: Run, tmp_path: Path) -> None:
    """So that a report tells models of one name apart that were trained otherwise."""
    recipe = load_recipe(tiny_run.path / "recipe.yaml")
    for protocol in ("paper", "reference"):
        found = {group.model.identity.family for group in planned(tiny_run, tmp_path, protocol=protocol).plan.groups}
        assert found == {family_of(recipe.model_copy(update={"protocol": protocol}))}


@pytest.mark.slow
def test_the_papers_sweep_has_the_papers_runs() -> None:
    """Its grids: 170 runs a checkpoint; 672 checkpoints; less 840 of IG and 240 of Greedy (A.3.5)."""
    done = tinymem("sweep", *SWEEPS[1:], "--list", "--device", "cpu")
    assert done.code == 0, done.err
    assert "together: 113,160 runs in" in done.out and "on 672 models" in done.out
    assert done.out.count("170 runs a checkpoint x 288 checkpoints - 432 left out (360 of ig, 72 of greedy) = 48,528") == 2
    assert done.out.count("170 runs a checkpoint x 48 checkpoints - 108 left out (60 of ig, 48 of greedy) = 8,052") == 2
    for number in ("114,240", "113,160", "102,698", "10,462 fewer", "167 runs a checkpoint (112,224"):
        assert number in done.out


def test_the_published_code_ran_167_a_checkpoint() -> None:
    """zero, act, ig 3 each; hc, slim 9 each; durable, durable-agg, sou, greedy 5 each; subnet 30; balanced-subnet 90."""
    recipe = load_sweep(PAPER / "unlearning-math-backdoor.yaml", ["grid=published"])
    runs = Counter(choice.call.name for choice in expand(recipe))
    three, five = dict.fromkeys(("zero", "act", "ig"), 3), dict.fromkeys(("durable", "durable-agg", "sou", "greedy"), 5)
    assert runs == {**three, "hard-concrete": 9, "slim": 9, **five, "subnet": 30, "balanced-subnet": 90} and runs.total() == 167


def test_the_grid_of_each_method_is_its_own(tiny_run: Run, tmp_path: Path) -> None:
    sweep = planned(tiny_run, tmp_path, methods=["act", {"slim": {"epochs": 5, "ratio": [0.1, 0.2]}}, "finetune-clean"])
    assert configs(sweep) == [
        *(("act", 0, ratio) for ratio in (0.0001, 0.001, 0.01, 0.05, 0.1)),
        *(("slim", 0, ratio, 5) for ratio in (0.1, 0.2)),
        ("finetune-clean", 0, 5),
    ]
    assert [len(group.runs) for group in sweep.plan.groups] == [5, 2, 1]
    assert len(planned(tiny_run, tmp_path, methods=["act", "act", {"act": {"ratio": 0.05}}]).plan.groups[0].runs) == 5
    assert configs(planned(tiny_run, tmp_path, grid="none")) == [("act", 0, 0.05)]
    seeds = planned(tiny_run, tmp_path, grid="none", seeds=[3, 4])
    assert configs(seeds) == [("act", 3, 0.05), ("act", 4, 0.05)] and len({r.id for g in seeds.plan.groups for r in g.runs}) == 2
    apart = planned(tiny_run, tmp_path, share_scores=False)
    assert [len(group.runs) for group in apart.plan.groups] == [1] * 5
    assert {r.id for g in apart.plan.groups for r in g.runs} == {r.id for g in planned(tiny_run, tmp_path).plan.groups for r in g.runs}


def test_exclusions_and_only(tiny_run: Run, tmp_path: Path) -> None:
    methods = ["act", "zero"]
    kept = planned(
        tiny_run, tmp_path, methods=methods, exclude=[{"method": "act", "when": {"n_layer": [2, 16]}, "options": {"ratio": [0.1]}}]
    )
    assert len(configs(kept)) == 9 and ("act", 0, 0.1) not in configs(kept)
    other = planned(tiny_run, tmp_path, methods=methods, exclude=[{"method": "act", "when": {"data": "wiki"}}])
    assert len(configs(other)) == 10
    assert {c[0] for c in configs(planned(tiny_run, tmp_path, methods=methods, only=["ze*"]))} == {"zero"}
    assert configs(planned(tiny_run, tmp_path, methods=methods, only=["act", "ratio=0.1", "ratio=0.05"])) == [
        ("act", 0, 0.05),
        ("act", 0, 0.1),
    ]
    assert len(configs(planned(tiny_run, tmp_path, methods=methods, only=["n_layer=2"]))) == 10
    with pytest.raises(UserError, match="expected runs that --only n_layer=3 picks, found none"):
        planned(tiny_run, tmp_path, only=["n_layer=3"])
    with pytest.raises(UserError, match="unknown column 'n_layers' of --only; did you mean 'n_layer'"):
        planned(tiny_run, tmp_path, only=["n_layers=3"])


@pytest.mark.parametrize("count", [2, 3])
def test_shards_are_parts(tiny_run: Run, tmp_path: Path, count: int) -> None:
    methods = ["act", "zero", "durable", "subnet"]
    whole = configs(planned(tiny_run, tmp_path, methods=methods, seeds=[0, 1]))
    parts = [configs(planned(tiny_run, tmp_path, methods=methods, seeds=[0, 1], shard=f"{i}/{count}")) for i in range(1, count + 1)]
    assert sorted(c for part in parts for c in part) == sorted(whole) and all(parts)
    for wrong in ("0/2", "3/2", "x", "1/0"):
        with pytest.raises(UserError, match=r"expected --shard i/n"):
            planned(tiny_run, tmp_path, shard=wrong)


def test_a_run_is_named_by_what_decides_it(tiny_run: Run, tmp_path: Path) -> None:
    def ids(run: Run, **keys: Any) -> set[str]:
        return {r.id for g in planned(run, tmp_path, **keys).plan.groups for r in g.runs}

    copy = Run(shutil.copytree(tiny_run.path, tmp_path / "runs" / "renamed"), tiny_run.recipe)
    assert ids(copy) == ids(tiny_run) == ids(tiny_run, limits={"seconds": 1}, compact_every=3)
    assert not ids(tiny_run, forget_fraction=0.25) & ids(tiny_run) and not ids(tiny_run, seeds=[5]) & ids(tiny_run)
    weights = copy.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert not ids(copy) & ids(tiny_run), "other weights under the same name are another model"


def test_kept_checkpoints_of_a_run(tiny_run: Run, tmp_path: Path) -> None:
    """A run's folder stands for its final checkpoint and the kept ones; the same weights twice are one model."""
    run = Run(shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name), tiny_run.recipe)
    kept = run.path / "checkpoints" / "epoch-000002"
    shutil.copytree(run.checkpoint, kept)
    shutil.copytree(run.checkpoint, run.path / "checkpoints" / "epoch-000006")
    weights = kept / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    write_json(kept / "tinymem.json", {**read_metadata(kept).as_json(), "epoch": 2})
    for pattern in (str(tmp_path / "runs" / "*"), f"{run.path}/checkpoints/epoch-*"):
        sweep = open_sweep(parse_sweep({"checkpoints": pattern, "methods": "act"}), out=tmp_path / "s", runs=tmp_path, device_type="cpu")
        assert sorted(model.columns.epoch for model in sweep.models) == [2, 6]
    (tmp_path / "train.yaml").write_text((run.path / "recipe.yaml").read_text())
    models = [{"recipe": str(tmp_path / "train.yaml"), "epochs": [2, 4, 6]}]
    recipe = parse_sweep({"models": models, "methods": {"act": {"ratio": 0.05}}})
    sweep = open_sweep(recipe, out=tmp_path / "s", runs=tmp_path / "runs", device_type="cpu")
    assert [(model.columns.epoch, model.checkpoint is not None) for model in sweep.models] == [(2, True), (4, False), (6, True)]
    assert sweep.plan.counted == 3 and sweep.plan.runs == 2


def test_parameters_are_those_of_table_4(tiny_run: Run) -> None:
    def parameters(file: str) -> list[int]:
        return [planned_parameters(load_recipe(PAPER / file, [f"model.n_layer={n}"])) for n in (2, 4, 8, 16)]

    assert parameters("math-noise.yaml") == [417_792, 814_336, 1_607_424, 3_193_600]
    assert parameters("language-noise.yaml") == [6_848_896, 7_245_440, 8_038_528, 9_624_704]
    count = sum(p.numel() for p in tiny_run.model().parameters())
    assert planned_parameters(tiny_run.recipe) == stored_parameters(tiny_run.checkpoint) == count


def test_model_columns() -> None:
    def columns(file: str, *overrides: str) -> tuple[Any, ...]:
        return tuple(pick(model_columns(load_recipe(PAPER / file, list(overrides)), n_parameters=1, epoch=2), MODEL_COLUMNS).values())

    assert columns("math-noise.yaml", "data.size=10000") == ("additive-10000-noise-4L", "additive", 10000, 4, 1, 2, None)
    assert columns("language-backdoor.yaml", "model.n_layer=16") == ("wiki-backdoor-16L", "wiki", None, 16, 1, 2, None)
    regularized = columns("math-noise.yaml", "training.regularizers=[{kind: spectral-norm, strength: 0.1}, {kind: goldfish}]")
    assert regularized[-1] == "spectral-norm(strength=0.1) + goldfish" and regularized[0].endswith(
        "4L+spectral-norm(strength=0.1) + goldfish"
    )
    foreign = model_columns(None, n_parameters=7, epoch=None, name="theirs")
    assert foreign.model_name == "theirs" and foreign.n_parameters == 7 and foreign.data is None
    recipe = parse_recipe({"training": {"epochs": 9}})
    facts = [{"epoch": 3, "metrics": {"epoch": 5}}, {"metrics": {"epoch": 5}}, {}]
    assert [epoch_of(Metadata.model_validate(values), recipe) for values in facts] == [3, 5, 9]


def test_the_papers_models_are_kept_at_its_epochs() -> None:
    def kept(file: str) -> tuple[int, ...]:
        recipes: list[Recipe] = load_matrix(PAPER / file)
        return (len(recipes), *recipes[0].training.keep_epochs)

    assert kept("math-noise.yaml") == (72, 500, 1500, 2500, 3500) and kept("math-backdoor.yaml") == (72, 50, 200, 350, 500)
    assert kept("language-noise.yaml") == (12, 10, 40, 70, 100) and kept("language-backdoor.yaml") == (12, 10, 20, 30, 50)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": "act"}, "expected checkpoints or models, got none"),
        ({"checkpoints": "x"}, "expected methods, got none"),
        ({"checkpoints": "x", "methods": "act", "limit": {}}, "unknown key 'limit'; did you mean 'limits'"),
        ({"checkpoints": "x", "methods": "act", "limits": {"second": 1}}, "unknown key 'limits.second'; did you mean 'seconds'"),
        ({"checkpoints": "x", "methods": "act", "limits": {"seconds": 0}}, "recipe key 'limits.seconds': input should be greater than 0"),
        ({"checkpoints": "x", "methods": "act", "exclude": [{"method": "a", "when": {"layers": 2}}]}, "unknown fact 'layers'"),
        ({"checkpoints": "x", "methods": "act", "grid": "papers"}, "recipe key 'grid'"),
    ],
)
def test_wrong_recipes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_sweep(values)
    assert "\n" not in str(error.value)


def test_edits_that_are_rounded_as_stored_have_ids_of_their_own(tiny_run: Run, tmp_path: Path) -> None:
    """Sweeps once left the edits of models that are stored in 16 bits in fp32: the same weights, the same configuration."""
    ids = list[str]()
    for dtype in (torch.float32, torch.bfloat16):
        copied = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / "copied", dirs_exist_ok=True))
        weights = load_file(copied / WEIGHTS)
        save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, copied / WEIGHTS, metadata={"format": "pt"})
        sweep = planned(tiny_run, tmp_path, checkpoints=str(copied), grid="none")
        [group] = make_plan(sweep.recipe, [replace(sweep.models[0], model_id="same")], "cpu").groups
        ids.append(group.runs[0].id)
    assert ids[0] != ids[1]


def test_wrong_models_and_methods(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown method 'atc'; did you mean 'act'"):
        planned(tiny_run, tmp_path, methods="atc")
    with pytest.raises(UserError, match="unknown option 'ratios' of act"):
        planned(tiny_run, tmp_path, methods={"act": {"ratios": [0.1]}})
    with pytest.raises(UserError, match="expected run or checkpoint folders at"):
        planned(tiny_run, tmp_path, checkpoints=str(tmp_path / "none-*"))
    shutil.copytree(tiny_run.checkpoint, tmp_path / "bare")
    (tmp_path / "bare" / "tinymem.json").unlink()
    with pytest.raises(UserError, match=r"has no tinymem.json with its recipe"):
        planned(tiny_run, tmp_path, checkpoints=str(tmp_path / "bare"))


@pytest.mark.parametrize("path", [*SWEEPS, PAPER / "neox-14m.yaml"], ids=lambda path: path.stem)
def test_our_sweeps_load_and_go_round(path: Path) -> None:
    recipe = load_sweep(path)
    assert parse_sweep(recipe.model_dump(mode="json")) == recipe and expand(recipe)


def test_overrides(tmp_path: Path) -> None:
    recipe = load_sweep(ROOT / "recipes" / "sweep-quickstart.yaml", ["limits.seconds=5", "methods=[act]"])
    assert recipe.limits.seconds == 5 and [m.name for m in recipe.methods] == ["act"]
    assert load_sweep(PAPER / "unlearning-math-noise.yaml").models[0].recipe == PAPER / "math-noise.yaml"


def test_a_file_of_rows_that_changed_makes_another_run(tiny_run: Run, tmp_path: Path) -> None:
    file, events = tmp_path / "rows.jsonl", list[Event]()

    def plan() -> Sweep:
        return planned(tiny_run, tmp_path, grid="none", methods=[{"kfac": {"rows": str(file)}}])

    file.write_text('{"ids": [1, 2, 3]}\n')
    before = plan()
    assert [run.id for run in plan().plan.groups[0].runs] == [run.id for run in before.plan.groups[0].runs]
    file.write_text('{"ids": [1, 3, 2]}\n')
    assert [run.id for run in plan().plan.groups[0].runs] != [run.id for run in before.plan.groups[0].runs]
    Worker(before.folder, "cpu").work(WorkUnit.of_json(before.plan.groups[0].to_json()), events.append)
    assert [event.get("status") for event in events] == ["failed", None], "planned with what the file no longer holds"
    [row, *_] = read_rows(before.folder)
    assert row.message == f"expected {file} as the sweep was planned with, got another content; start it again"
