"""Models by name in a sweep: of any family, on rows from files, with the rows that `tinymem mitigate` gives for the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from by_heart import KNOWN, MATCH, PROMPT, ByHeart, by_heart
from helpers import ROOT, tinymem
from hub_stub import Hub

from tinymem.cli.sweep_plan import _of_spread
from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError
from tinymem.mitigation.method import parse_call
from tinymem.models.families import FAMILIES
from tinymem.recipe.sweep import load_sweep, parse_sweep
from tinymem.results.row import MeasuredRow
from tinymem.results.store import read_rows
from tinymem.runs.checkpoint import mitigate_checkpoint
from tinymem.sweep.estimate import MethodCost
from tinymem.sweep.run import Sweep, open_sweep
from tinymem.sweep.task import Worker
from tinymem.sweep.work import WorkUnit

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*rows to forget are not memorized"),
    pytest.mark.filterwarnings("ignore:.*rows to forget are among the rows to keep"),
]
PAPER = ROOT / "recipes" / "paper"
COST = {"seconds", "seconds_measure", "peak_mb", "scores_shared", "finished", "host", "attempts", "rows_retain", "row_tokens", "weights"}
METHODS = [
    {"act": {"ratio": [0.05, 0.2]}},
    {"durable": {"ratio": 0.1}},
    {"balanced-subnet": {"ratio": [0.05], "epochs": 1, "loss_weight": 0.9}},
]


@pytest.fixture
def llama(tmp_path: Path) -> ByHeart:
    return by_heart(tmp_path / "step36000", torch.bfloat16)


def files(llama: ByHeart) -> dict[str, Any]:
    forget = llama.jsonl("forget", torch.cat([llama.known, llama.others]))
    return {"forget": str(forget), "retain": str(llama.jsonl("retain", llama.retain)), "prompt": PROMPT, "match": MATCH}


def opened(llama: ByHeart, *models: dict[str, Any], fetch: bool = True, **keys: Any) -> Sweep:
    rows = {**files(llama), **keys.pop("rows", {})}
    recipe = parse_sweep({"models": [*models], "rows": rows, "methods": METHODS, **keys})
    place = llama.folder.parent / "sweep"
    return open_sweep(recipe, out=place, runs=place, device_type="cpu", fetch=fetch)


def done(sweep: Sweep, worker: Worker | None = None) -> list[MeasuredRow]:
    worker = worker or Worker(sweep.folder, "cpu")
    for group in sweep.left():
        worker.work(group, lambda _event: None)
    return read_rows(sweep.folder)


def neox(folder: Path) -> Path:
    """A random GPT-NeoX whose vocabulary has the rows' ids."""
    torch.manual_seed(0)
    model: Any = FAMILIES.get("gpt-neox").tiny(49, 40)
    model.save_pretrained(folder)
    return folder


@pytest.mark.training
def test_two_families_give_the_rows_of_mitigate(llama: ByHeart, tmp_path: Path) -> None:
    other = neox(tmp_path / "step72000")
    models = [{"name": str(llama.folder), "dtype": "auto"}, {"name": str(other), "dtype": "bf16"}]
    sweep = opened(llama, *models, seeds=[3])
    assert sweep.plan.counted == sweep.plan.runs == 2 * 4
    rows = done(sweep)
    assert len(rows) == 8 and not sweep.reasons() and {row.status for row in rows} == {"ok"}
    own = RowFiles(Path(files(llama)["forget"]), Path(files(llama)["retain"]), PROMPT, MATCH)
    for name, step in ((llama.folder, 36000), (other, 72000)):
        found = {row.id: row for row in rows if row.step == step}
        assert len(found) == 4
        for method, options in (
            ("act", {"ratio": 0.05}),
            ("durable", {"ratio": 0.1}),
            ("balanced-subnet", {"ratio": 0.05, "epochs": 1, "loss_weight": 0.9}),
        ):
            [alone] = mitigate_checkpoint(name, parse_call(method, options), files=own, seed=3, device="cpu", dtype="bf16", progress=False)
            row = found[alone.id]
            assert row.dtype == "bfloat16" and row.weights == row.model_id
            assert {k: v for k, v in row.as_dict().items() if k not in COST} == {k: v for k, v in alone.as_dict().items() if k not in COST}
    assert max(row.memorized_count_before or 0 for row in rows) == KNOWN


@pytest.mark.training
def test_a_model_that_is_spread_reaches_the_worker_with_its_number_of_gpus(llama: ByHeart, tmp_path: Path) -> None:
    model = {"name": str(llama.folder), "gpus": 2}
    (tmp_path / "sweep.yaml").write_text(json.dumps({"models": [model], "rows": files(llama), "methods": METHODS}))
    words = ("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "out", "--jobs", 1)
    refused = tinymem(*words, "--device", "cpu").one_line_error()
    assert "expected --device cuda to spread a model over 2 GPUs, got cpu" in refused and not (tmp_path / "out").exists()
    sweep = opened(llama, model)
    assert sweep.recipe.gpus == 2 and {group.model.rows["gpus"] for group in sweep.left() if group.model.rows} == {2}
    rows = done(sweep)
    assert {row.status for row in rows} == {"failed"} and all("expected --device cuda to spread" in str(row.message) for row in rows)


@pytest.mark.parametrize(("found", "said"), [(0, "none"), (1, "1")])
@pytest.mark.parametrize("search", [(), ("--search", "halving")])
def test_a_sweep_on_too_few_gpus_is_refused_before_anything_is_written(
    llama: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: int, said: str, search: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    models = [{"name": str(llama.folder)}, {"name": str(neox(tmp_path / "neox")), "gpus": 2}]
    (tmp_path / "sweep.yaml").write_text(json.dumps({"models": models, "rows": files(llama), "methods": METHODS}))
    words = ("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "out", *search)
    refused = tinymem(*words).one_line_error()
    assert refused == f"expected 2 GPUs here to spread a model over, found {said}; lower --gpus, or a recipe's gpus"
    assert not (tmp_path / "out").exists()
    assert tinymem(*words, "--list").code == 0, "a plan needs no GPU"


def test_an_estimate_counts_the_gpus_that_a_run_holds(llama: ByHeart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = {"name": str(llama.folder), "gpus": 2}
    found = {"act": MethodCost(shared=600.0, measure=300.0), "durable": MethodCost(shared=900.0)}
    sentence = "sweep: times are of whole runs, each of which holds 2 GPUs: 1 h of GPU time"
    assert _of_spread(opened(llama, model), found, "cuda") == [sentence]
    assert not _of_spread(opened(llama, {**model, "gpus": 1}), found, "cuda") and not _of_spread(opened(llama, model), found, "cpu")
    (tmp_path / "sweep.yaml").write_text(json.dumps({"models": [model], "rows": files(llama), "methods": METHODS}))
    said = {device: tinymem("sweep", tmp_path / "sweep.yaml", "--dry-run", "--device", device) for device in ("auto", "cuda", "cpu")}
    assert said["auto"].out == said["cuda"].out and "on a GPU, of which there is none here, one run at a time" in said["auto"].out
    assert "sweep: models by name are guessed from their size, not probed" in said["auto"].out
    assert "each of which holds 2 GPUs" in said["auto"].out and said["cpu"].code == 0 and "GPU time" not in said["cpu"].out


@pytest.mark.training
def test_a_sweep_goes_on_and_its_report_reads_it(llama: ByHeart, tmp_path: Path) -> None:
    other = neox(tmp_path / "neox")
    models = [{"name": str(llama.folder)}, {"name": str(other)}]
    first = opened(llama, *models)
    worker = Worker(first.folder, "cpu")
    for group in first.left()[:2]:
        worker.work(group, lambda _event: None)
    half = read_rows(first.folder)
    assert 0 < len(half) < 8
    rows = done(opened(llama, *models))
    assert len(rows) == 8 and {r.id: r.finished for r in half}.items() <= {r.id: r.finished for r in rows}.items()
    assert not opened(llama, *models).left(), "nothing is left"
    report = tinymem("report", first.folder, "--tables", "3,best")
    assert report.code == 0, report.err
    assert "step36000" in report.out and "neox" in report.out and "balanced-subnet" in report.out


@pytest.mark.training
def test_one_folder_in_two_types_is_two_models(llama: ByHeart) -> None:
    models = [{"name": str(llama.folder), "dtype": dtype} for dtype in ("bf16", "fp32")]
    sweep = opened(llama, *models, methods=["durable"], grid="none")
    assert len({group.model_key for group in sweep.plan.groups}) == 2 and len({group.name for group in sweep.plan.groups}) == 2
    assert {row.dtype for row in done(sweep)} == {"bfloat16", "float32"}
    with pytest.warns(UserWarning, match="have the same weights; only the first counts"):
        assert len(opened(llama, *[{"name": str(llama.folder)}] * 2).models) == 1


@pytest.mark.training
def test_rows_that_change_after_the_plan_are_refused(llama: ByHeart) -> None:
    sweep = opened(llama, {"name": str(llama.folder)}, rows={"forget_rows": "memorized"}, methods=["act"], grid="none")
    llama.jsonl("forget", llama.known)
    [row] = done(sweep)
    assert row.status == "failed" and "expected the weights and rows that the sweep was planned with" in str(row.message)
    assert row.artifact == "rows" and row.step == 36000
    again = opened(llama, {"name": str(llama.folder)}, rows={"forget_rows": "memorized"}, methods=["act"], grid="none")
    for group in again.left(retry_failed=True):
        Worker(again.folder, "cpu").work(WorkUnit.of_json(group.to_json()), lambda _event: None)
    [row] = read_rows(again.folder)
    assert row.is_ok and row.rows_scored == 2 * KNOWN and (row.rows_forget or 0) + (row.rows_holdout or 0) == KNOWN


@pytest.mark.training
def test_a_search_by_halving(llama: ByHeart) -> None:
    from tinymem.report.configuration import row_scores
    from tinymem.sweep.halving import halve

    def engine(sweep: Sweep, groups: Any, tally: Any, _stop: Any) -> None:
        for group in groups:
            Worker(sweep.folder, "cpu").work(group, lambda event: tally(event) if event["event"] == "run" else None)

    for ratios, made in (([0.05, 0.1], 2), ([0.05, 0.5], 1)):  # the small ones forget nothing, so that both stay
        methods = [{"balanced-subnet": {"ratio": ratios, "epochs": 1, "loss_weight": 0.9}}]
        sweep = opened(llama, {"name": str(llama.folder)}, methods=methods, search="halving")
        statuses = halve(sweep, engine, row_scores, progress=False)
        assert statuses == {"ok": made}


@pytest.mark.slow
def test_from_the_hub(llama: ByHeart, hub: Hub) -> None:
    hub.add("org/heart", {"config.json": b"{}"})
    hub.add("org/heart", {path.name: path.read_bytes() for path in llama.folder.iterdir()}, branch="step143000")
    entry = {"name": "org/heart", "revision": "step143000", "dtype": "bf16"}
    absent = opened(llama, entry, fetch=False)
    assert absent.plan.counted == 4 and absent.plan.runs == 0
    assert (absent.models[0].columns.model_name, absent.models[0].columns.step) == ("org/heart@step143000", 143000)
    with pytest.raises(UserError, match="org/heart"):
        opened(llama, {**entry, "max_size": "1KB"})
    for fetch in (True, False):
        [model] = opened(llama, entry, fetch=fetch).models
        assert model.checkpoint is not None and model.columns.model_name == "org/heart@step143000"
        assert (model.columns.revision, model.columns.step) == ("step143000", 143000)
        assert model.columns.commit == hub.repo("org/heart").branches["step143000"]


@pytest.mark.parametrize("name", ["pythia-2.8b", "pythia-6.9b"])
def test_the_papers_recipes(name: str) -> None:
    """Its grids of A.4.2 at its four steps: 150 runs each, 1,200 on both models, of the 1,216 that it counts."""
    recipe = load_sweep(PAPER / f"{name}.yaml")
    assert parse_sweep(recipe.model_dump(mode="json")) == recipe
    listed = tinymem("sweep", PAPER / f"{name}.yaml", "--list", "--device", "cpu", "--json")
    assert listed.code == 0, listed.err
    runs = {line["method"]: line["runs"] for line in json.loads(listed.out)}
    each = {"balanced-subnet": 72, "subnet": 24, "hard-concrete": 18, "slim": 18, "greedy": 1, "act": 5, "durable": 6, "durable-agg": 6}
    assert runs == {**{method: 4 * count for method, count in each.items()}, "all": 600}
    one = tinymem("sweep", PAPER / f"{name}.yaml", "--list", "--device", "cpu", "--only", "step=143000", "--only", "greedy")
    assert f"{name}: 1 run on 4 models, 0 of them here" in one.out
    hours = tinymem("sweep", PAPER / f"{name}.yaml", "--dry-run", "--device", "cpu")
    assert hours.code == 0 and f"{name}: without 4 models of the Hub not fetched yet" in hours.out


NAMED: dict[str, Any] = {"models": [{"name": "org/one"}], "methods": "act"}
ROWS = {"forget": "f", "retain": "r"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (NAMED, "expected `rows: {forget: FILE, retain: FILE}` for org/one, got none"),
        ({"checkpoints": "x", "methods": "act", "rows": ROWS}, "expected a model by name, .* for `rows`, got none"),
        ({**NAMED, "rows": {"forget": "f"}}, "recipe key 'rows.retain': field required"),
        ({**NAMED, "rows": {**ROWS, "promt": 3}}, "unknown key 'rows.promt'; did you mean 'prompt'"),
        ({**NAMED, "rows": {**ROWS, "prompt": 0}}, "recipe key 'rows.prompt': input should be greater than or equal to 1"),
        ({**NAMED, "rows": ROWS, "ks": [8]}, "expected no `ks` with models by name"),
        ({**NAMED, "rows": ROWS, "forget": "noise"}, "expected no `forget` with models by name"),
        ({**NAMED, "rows": ROWS, "models": [{"revision": "main"}]}, "with `recipe` .* or `name` .*, got revision"),
        ({**NAMED, "rows": ROWS, "models": [{"name": "a", "recipe": "b"}]}, "with `recipe` .* or `name` .*, got both"),
        ({**NAMED, "rows": ROWS, "models": [{"name": "a", "dtpye": "bf16"}]}, "unknown key 'models.0.dtpye'; did you mean 'dtype'"),
        ({**NAMED, "rows": ROWS, "models": [{"name": "a", "dtype": "int8"}]}, "recipe key 'models.0.dtype': input should be 'auto'"),
        ({"models": [{"recipe": "a", "epoch": 1}], "methods": "act"}, "unknown key 'models.0.epoch'; did you mean 'epochs'"),
    ],
)
def test_wrong_entries(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_sweep(values)
    assert "\n" not in str(error.value)


def test_what_is_not_there(llama: ByHeart, hub: Hub) -> None:
    with pytest.raises(UserError, match=r"expected ORG/NAME of the Hub or a model's folder for models.name, got './none'"):
        opened(llama, {"name": "./none"})
    with pytest.raises(UserError, match=r"expected a file at .*none.pt for rows.forget, found none"):
        opened(llama, {"name": "org/large"}, rows={"forget": "none.pt"})
    assert not hub.repos, "files are looked for before anything is fetched"
