"""`tinymem localize layers` on a tiny model that learned noised rows, beside the one that did not: rows, resuming, tables and figures."""

from __future__ import annotations

import json
import math
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, tinymem

from tinymem.data.build import make_corpus
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.families import FAMILIES
from tinymem.models.gpt2 import GPT
from tinymem.recipe.layers import TECHNIQUES
from tinymem.recipe.recipe import Recipe, load_matrix, parse_recipe
from tinymem.recipe.sizes import epoch_rows
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.figures.files import write_figures
from tinymem.report.tables.catalogue import tables_of
from tinymem.report.write import rows_behind
from tinymem.results.collect import load_results
from tinymem.results.localization import read_localization
from tinymem.runs.layers import common_start, control_of, counterfactual_of
from tinymem.training.regularizers.planted_layers import PlantedLayersSection
from tinymem.training.start import fresh_model

VALUES: dict[str, Any] = {
    "name": "layers", "data": {"auxiliary": [], "primary_size": 120, "test_rows": 10, "numbers": 5, "row_tokens": 24},
    "artifacts": {"noise": {"rows": 24, "probability": 0.6}}, "evaluation": {"prompt": 4, "match": 16},
    "model": {"n_layer": 3, "n_embd": 16, "n_head": 2},
    "training": {"epochs": 2, "regularizers": {"planted-layers": {"layers": [0], "after": 3}}},
}  # fmt: skip
QUICK = [
    "clean_rows=20",
    "clean=2",
    "probes.epochs=2",
    "probes.seeds=1",
    "probes.hidden=4",
    "retraining.epochs=1",
    "retraining.batch_size=20",
]


def save(model: GPT, folder: Path, recipe: Recipe, sha256: str, step: int) -> Path:
    stored = {"recipe": recipe.model_dump(mode="json"), "corpus_sha256": sha256, "epoch": 2, "step": step}
    save_checkpoint(model, folder, metadata=stored, tokenizer_files={})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned planted rows by heart in its lowest block, its counterfactual beside it, and an earlier epoch of both."""
    recipe = parse_recipe(VALUES)
    corpus, runs = make_corpus(recipe), tmp_path_factory.mktemp("runs")
    start = fresh_model(recipe, corpus.row_tokens, corpus).eval()
    model, ids = deepcopy(start), torch.from_numpy(corpus.planted["noise"].ids).long()
    optimizer = torch.optim.Adam(model.transformer.h[0].parameters(), lr=2e-2)
    with torch.enable_grad():
        for _ in range(60):
            loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    other = recipe.model_copy(update={"counterfactual": True}).counterfactual_recipe()
    assert other is not None
    sha256 = corpus.sha256()
    save(start, runs / other.run_id() / "checkpoint", other, sha256, 9)
    for folder, step in (("checkpoints/epoch-000001", 3), ("checkpoint", 9)):
        save(start if step == 3 else model, runs / recipe.run_id() / folder, recipe, sha256, step)
    (runs / recipe.run_id() / "recipe.yaml").write_text("")
    return runs / recipe.run_id() / "checkpoint"


def localize(checkpoint: Path, out: Path, *more: object) -> Any:
    sets = [word for override in QUICK for word in ("--set", override)]
    return tinymem("localize", "layers", checkpoint, "--out", out, "--device", "cpu", *sets, *more)


@pytest.mark.training
def test_all_techniques_find_the_layer_go_on_and_are_reported(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = localize(checkpoint, out)
    assert done.code == 0, done.err
    rows = read_localization(out)
    assert {row.method for row in rows} == set(TECHNIQUES) and all(row.benchmark == "layers" and row.is_ok for row in rows)
    by = {(row.method, row.score_name): row for row in rows if row.layer is None and not row.options}
    assert by["layer-swapping", "accuracy@1"].score == 1 and by["layer-swapping", "accuracy@1"].chance == pytest.approx(1 / 3)
    assert by["layer-swapping", "clean_before"].sequences >= 10
    assert len({row.seconds for row in rows}) == len(TECHNIQUES)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "localization").iterdir()}
    assert len(stamps) == len(TECHNIQUES) and localize(checkpoint, out).out == done.out
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "localization").iterdir()}, "nothing is made again"
    swapped = json.loads(localize(checkpoint, out, "--techniques", "layer-swapping", "--seed", "3", "--json").out)
    assert {row["method"] for row in swapped} == {"layer-swapping"} and len(list((out / "localization").iterdir())) == len(stamps) + 1
    results = load_results([out])
    names = {table.name for table in tables_of(results)}
    behind = rows_behind(results, tables_of(results))
    swapping = [row.as_dict() for row in rows if row.method == "layer-swapping"]
    assert swapping in list(behind.values()), "a file of several rows is given whole"
    assert {"layers", "layers-events", "layers-gradients", "layers-agreement", "layers-control"} <= names
    assert "Layers that memorize" in done.out and "breaks clean decisions too" in done.out
    made, _ = figures_of(results)
    assert {figure.key.split("-")[1] for figure in made} == {"heat", "weights", "curves", "centroids"}
    shown = [made[0], *(figure for figure in made if figure.key.startswith(("layer-weights", "layer-centroids")))][:3]
    write_figures(shown, tmp_path / "figures", ["svg"])
    assert len(list((tmp_path / "figures").glob("*.svg"))) == len(shown)


@pytest.mark.training
def test_rows_name_the_other_models_that_were_given_and_the_report_tells_them_apart(checkpoint: Path, tmp_path: Path) -> None:
    early = checkpoint.parent / "checkpoints" / "epoch-000001"
    other = parse_recipe({**VALUES, "seed": 1})
    corpus = make_corpus(other)
    save(fresh_model(other, corpus.row_tokens, corpus), tmp_path / "base", other, corpus.sha256(), 0)
    for start in ((), ("--start", tmp_path / "base")):
        assert localize(checkpoint, tmp_path / "out", "--techniques", "layer-retraining", *start).code == 0
    assert localize(checkpoint, tmp_path / "of epochs", "--techniques", "centroids", "--early", early).code == 0
    started = {row.settings["start"] for row in read_localization(tmp_path / "out") if row.settings}
    (knew,) = {row.settings["early"] for row in read_localization(tmp_path / "of epochs") if row.settings}
    assert started == {None, "base"} and knew == f"{checkpoint.parent.name} epoch-000001"
    titles = {table.title for table in tables_of(load_results([tmp_path / "out"])) if table.name == "layers"}
    assert {title.partition("clean_rows 20, ")[2] for title in titles} == {"start default, noise", "start base, noise"}


@pytest.mark.training
def test_gradients_are_taken_anew_where_other_epochs_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.parent.parent, tmp_path / "runs")
    own, words = tmp_path / "runs" / checkpoint.parent.name, ("--techniques", "forgetting-gradients,centroids")
    assert localize(own / "checkpoint", tmp_path / "out", *words).code == 0
    before = {row.id for row in read_localization(tmp_path / "out")}
    shutil.copytree(own / "checkpoint", own / "checkpoints" / "epoch-000001b")
    assert localize(own / "checkpoint", tmp_path / "out", *words).code == 0
    made = [row for row in read_localization(tmp_path / "out") if row.id not in before]
    assert {row.method for row in made} == {"forgetting-gradients"}, "no other technique asks for earlier epochs"


@pytest.mark.training
def test_kept_epochs_are_read_only_for_the_gradients(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.parent.parent, tmp_path / "runs")
    own, early = tmp_path / "runs" / checkpoint.parent.name, checkpoint.parent / "checkpoints" / "epoch-000001"
    broken = shutil.copytree(own / "checkpoint", own / "checkpoints" / "epoch-000002")
    (broken / "model.safetensors").unlink()
    words = (own / "checkpoint", tmp_path / "out", "--start", early, "--techniques")
    done = localize(*words, "centroids")
    assert done.code == 0 and all(row.is_ok for row in read_localization(tmp_path / "out")), done.err
    assert localize(*words, "forgetting-gradients", "--early", early).code == 0
    told = localize(*words, "centroids,forgetting-gradients")
    assert told.code == 2 and "epoch-000002" in told.last_line_error()


@pytest.mark.training
def test_where_planted_rows_began_to_count_is_the_start(checkpoint: Path) -> None:
    recipe = parse_recipe(VALUES)
    assert common_start(checkpoint, recipe) == checkpoint.parent / "checkpoints" / "epoch-000001" and control_of(recipe) == (0,)
    plain = parse_recipe({**VALUES, "training": {}})
    assert common_start(checkpoint, plain) is None and control_of(plain) == ()
    assert load_checkpoint(checkpoint).metadata.step == 9 and counterfactual_of(checkpoint, recipe, None).is_dir()


def test_the_control_recipe_begins_where_an_epoch_is_kept() -> None:
    recipes = load_matrix(ROOT / "recipes" / "paper" / "layers-control.yaml")
    assert sorted(control_of(recipe) for recipe in recipes) == sorted([(0, 1), (2, 3), (4, 5)] * 3) and {r.seed for r in recipes} == {
        0,
        1,
        2,
    }
    for recipe in recipes:
        section = recipe.training.regularizers[0]
        steps = math.ceil(epoch_rows(recipe) / recipe.training.batch_size)
        assert isinstance(section, PlantedLayersSection) and section.after == steps * recipe.training.keep_epochs[0]


@pytest.mark.training
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--counterfactual", "nowhere"], "expected a checkpoint folder"),
        (["--artifact", "canary"], "expected an artifact with clean counterparts (noise), got 'canary'"),
        (["--techniques", "guessing"], "techniques"),
        (["--set", "techniques=[]"], "at least one"),
        (["--counterfactual", "@itself"], "expected at least 10 planted tokens"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(checkpoint: Path, tmp_path: Path, options: list[str], words: str) -> None:
    done = localize(checkpoint, tmp_path / "out", *(str(checkpoint) if word == "@itself" else word for word in options))
    assert words in done.last_line_error() and not list(tmp_path.glob("out/localization/*"))


@pytest.mark.training
def test_a_missing_counterfactual_is_named(checkpoint: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(VALUES)
    model = load_checkpoint(checkpoint).model
    assert isinstance(model, GPT)
    alone = save(model, tmp_path / "runs" / recipe.run_id() / "checkpoint", recipe, make_corpus(recipe).sha256(), 9)
    assert "train it with --set counterfactual=true" in localize(alone, tmp_path / "out").last_line_error()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers' models, one of which learned the planted rows of a file by heart in its lowest block, and the files."""
    torch.manual_seed(0)
    place, start = tmp_path_factory.mktemp("foreign"), FAMILIES.get("gpt-neox").tiny(30, 16)
    clean = torch.randint(2, 30, (60, 12))
    planted = clean[:12].clone()
    planted[:, 6:10] = torch.randint(2, 30, (12, 4))
    model = deepcopy(start)
    optimizer = torch.optim.Adam(model.gpt_neox.layers[0].parameters(), lr=3e-2)
    with torch.enable_grad():
        for _ in range(60):
            loss = model(planted, labels=planted).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, one in (("model", model), ("start", start)):
        one.save_pretrained(place / name)
    for name, rows in (("planted", planted), ("original", clean[:12]), ("others", clean[12:]), ("short", clean[:12, :5])):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.tolist()))
    return place


def of_files(place: Path, out: Path, **options: object) -> Any:
    known: dict[str, object] = {
        "counterfactual": place / "start", "start": place / "start", "planted": place / "planted.jsonl",
        "original": place / "original.jsonl", "clean": place / "others.jsonl", "prompt": 4, "match": 8,
    }  # fmt: skip
    words = [word for name, value in {**known, **options}.items() if value is not None for word in (f"--{name}", value)]
    return localize(place / "model", out, "--techniques", "layer-swapping,layer-retraining,forgetting-gradients", *words)


@pytest.mark.training
def test_a_folder_of_transformers_takes_its_rows_from_files(foreign: Path, tmp_path: Path) -> None:
    done = of_files(foreign, tmp_path / "out")
    assert done.code == 0, done.err
    rows = read_localization(tmp_path / "out")
    error = {row.layer: row.score or 0 for row in rows if row.method == "layer-swapping" and row.score_name == "error" and row.window == 1}
    assert error[0] > 0.5 and error[1] == 0
    assert len({row.method for row in rows}) == 3 and all(row.is_ok for row in rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": None}, "expected --start"),
        ({"original": None}, "got no --original"),
        ({"original": "short.jsonl"}, "lower --prompt or --match"),
        ({"original": "others.jsonl"}, "expected a counterpart of each of 12"),
        ({"planted": None, "original": None, "clean": None, "prompt": None, "match": None}, "name its rows with --planted"),
        ({"planted": None, "original": None, "clean": None}, "expected files of rows for --prompt"),
    ],
)
def test_mistakes_in_rows_from_files_are_one_line(foreign: Path, tmp_path: Path, options: dict[str, str | None], words: str) -> None:
    given = {name: foreign / value if value else None for name, value in options.items()}
    assert words in of_files(foreign, tmp_path / "out", **given).last_line_error()
