"""Matrices: which runs a recipe stands for, their names, and picking some of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT, tinymem

from tinymem.errors import UserError
from tinymem.recipe.matrix import pick
from tinymem.recipe.recipe import Recipe, load_matrix, load_recipe

PAPER = ROOT / "recipes" / "paper"
COUNTS = {
    "math-noise": 72,
    "math-backdoor": 72,
    "language-noise": 12,
    "language-backdoor": 12,
    "math-regularized": 54,
    "language-regularized": 54,
    "regularizers": 39,
}
TEXT = """
name: small
seed: 7
model: {n_layer: 3}
matrix:
  data.family: [additive, multiplicative]
  seed: [0, 1]
  regularizer:
    none:
    goldfish: {training.regularizers: [{kind: goldfish}], training.epochs: 9}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(TEXT)
    return tmp_path / "small.yaml"


def runs_of(path: Path, *overrides: str) -> list[Recipe]:
    return load_matrix(path, list(overrides))


def test_every_combination_in_order(path: Path) -> None:
    runs = runs_of(path)
    assert [run.name for run in runs] == [
        f"small-{family}-seed{seed}-{r}" for family in ("additive", "multiplicative") for seed in (0, 1) for r in ("none", "goldfish")
    ]
    assert [(r.data.family, r.seed, r.training.epochs, len(r.training.regularizers)) for r in runs[:4]] == [
        ("additive", 0, 500, 0), ("additive", 0, 9, 1), ("additive", 1, 500, 0), ("additive", 1, 9, 1),
    ]  # fmt: skip
    assert len({run.run_id() for run in runs}) == 8 and all(run.model.n_layer == 3 for run in runs)


def test_verbs_of_one_recipe_use_the_base_values(path: Path) -> None:
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed, recipe.training.epochs, recipe.training.regularizers) == ("small", 7, 500, ())
    assert load_recipe(path, ["seed=1", "regularizer=goldfish"]).training.epochs == 9


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["seed=1", "regularizer=none"], ["small-additive-seed1-none", "small-multiplicative-seed1-none"]),
        (["seed=5", "data.family=additive", "regularizer=none"], ["small-additive-seed5-none"]),
        (["matrix.seed=[8]", "matrix.regularizer={a: {}}"], ["small-additive-seed8-a", "small-multiplicative-seed8-a"]),
        (["matrix={seed: [4]}", "name=other"], ["other-seed4"]),
        (["matrix=null"], ["small"]),
    ],
)
def test_overrides_fix_axes(path: Path, overrides: list[str], names: list[str]) -> None:
    assert [run.name for run in runs_of(path, *overrides)] == names


def test_a_fixed_axis_gives_the_same_run(path: Path) -> None:
    whole = {run.name: run for run in runs_of(path)}
    for run in runs_of(path, "seed=1"):
        assert whole[run.name] == run and whole[run.name].run_id() == run.run_id()


def test_other_overrides_win_over_the_axes(path: Path) -> None:
    assert {run.training.epochs for run in runs_of(path, "training.epochs=2")} == {2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularizer=goldfsh"], "unknown value 'goldfsh' of the matrix's 'regularizer'; did you mean 'goldfish'?"),
        (["training.regularizers=[]", "training.epochs=3"], "expected runs that differ, got small-additive-seed0-none and small-additive-"),
        (["matrix.model.n_layers=[1]"], "unknown key 'model.n_layers'; did you mean 'n_layer'?"),
        (["matrix.seed=3"], "expected matrix.seed to be a list of values"),
        (["matrix.seed=[]"], "expected matrix.seed to be a list of values"),
        (["matrix.regularizer={a: 3}"], "names with the keys that each sets"),
        (["matrix=3"], "expected `key: [values]` lines in matrix, got int"),
        (["matrix.name=[a/b]"], "got 'a/b'; name each value"),
        (["seed=x"], "recipe key 'seed'"),
    ],
)
def test_refusals(path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        runs_of(path, *overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", COUNTS)
def test_the_papers_models(name: str) -> None:
    runs = load_matrix(PAPER / f"{name}.yaml")
    assert len(runs) == COUNTS[name] == len({run.run_id() for run in runs}) == len({run.name for run in runs})
    assert {run.seed for run in runs} == {0, 1, 3}
    wrong = {r for r in runs if any(e > r.training.epochs or e % r.training.evaluate_every for e in r.training.keep_epochs)}
    assert not wrong, "kept epochs are measured ones"


def test_the_paper_in_all() -> None:
    models = [run for name in list(COUNTS)[:4] for run in load_matrix(PAPER / f"{name}.yaml")]
    assert len(models) == 168 == len({run.run_id() for run in models})
    assert sum(len(run.training.keep_epochs) for run in models) == 672
    assert all(run.training.keep_epochs[-1] == run.training.epochs for run in models)  # the last one is the run's checkpoint
    sizes = {(r.data.family, r.data.size, r.model.n_layer, r.artifacts[0].kind) for r in models if r.data.kind == "math"}
    assert len(sizes) == 2 * 3 * 4 * 2
    regularized = [run for name in list(COUNTS)[4:6] for run in load_matrix(PAPER / f"{name}.yaml")]
    assert len(regularized) == 2 * 2 * 3 * 3 * 3 and {run.model.n_layer for run in regularized} == {4}
    ends = {(r.data.kind, r.artifacts[0].kind): r.training.epochs for r in (*models, *regularized)}
    assert ends == {("math", "noise"): 3500, ("math", "backdoor"): 500, ("wiki", "noise"): 100, ("wiki", "backdoor"): 50}


def test_pick(path: Path) -> None:
    runs = runs_of(path)
    names = [run.name for run in runs]
    assert pick(runs) == runs
    assert [r.name for r in pick(runs, ["*-seed1-*", "small-additive-seed0-none"])] == [n for n in names if "seed1" in n or n == names[0]]
    shards = [[r.name for r in pick(runs, shard=f"{i}/3")] for i in (1, 2, 3)]
    assert sorted(n for shard in shards for n in shard) == sorted(names) and [len(shard) for shard in shards] == [3, 3, 2]
    assert [r.name for r in pick(runs, ["*goldfish"], "2/2")] == [n for n in names if n.endswith("goldfish")][1::2]
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UserError, match="expected --shard i/n"):
            pick(runs, shard=wrong)
    with pytest.raises(UserError, match="did you mean 'small-additive-seed0-none'"):
        pick(runs, ["small-additive-seed0-nine"])
    with pytest.raises(UserError, match="--list names all 8"):
        pick(runs, ["xxxxx"])


def listed(*words: object) -> list[str]:
    """Names of the runs, none of which is trained."""
    done = tinymem("train", *words, "--list", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert all(run["state"] == "waiting" and run["left"].startswith("make the corpus, train ") for run in found)
    return [run["name"] for run in found]


def test_list(path: Path, tmp_path: Path) -> None:
    assert listed(path, "--runs", tmp_path / "runs") == [run.name for run in runs_of(path)]
    assert f"8 runs, 0 done in {tmp_path / 'runs'}" in tinymem("train", path, "--runs", tmp_path / "runs", "--list").out
    assert listed(path, "--set", "seed=1", "--only", "*none", "--shard", "2/2") == ["small-multiplicative-seed1-none"]
    assert listed(ROOT / "recipes" / "quickstart.yaml", "--runs", tmp_path / "runs") == ["quickstart"]
    assert not (tmp_path / "runs").exists()
    assert "no run is named" in tinymem("train", path, "--only", "tiny").one_line_error()
