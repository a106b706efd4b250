"""What is pushed to the Hub: whole, resumable at any call, verified, with its card, and nothing of the machine that made it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUICKSTART, SMALLER, TINY, equal_weights, random_gpt, tinymem
from hub_stub import TOKEN, Hub
from huggingface_hub import ModelCard, snapshot_download

from tinymem.errors import UserError
from tinymem.hub.fetch import checkpoint_folder
from tinymem.hub.upload import Branch, Collection, LocalFile, Plan, Repository, push
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.gpt2 import GPT
from tinymem.models.metadata import read_metadata
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import Run, run
from tinymem.runs.publish import Choices, model_repository, opened, plan_of

METADATA = "tinymem.json"
CARD = b"---\nlicense: mit\n---\n# A card\n"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited between two tries."""
    waited: list[float] = []
    monkeypatch.setattr("tinymem.hub.client.time.sleep", waited.append)
    return waited


def variant(made: Path, folder: Path, *, step: int = 60, seed: int = 0, weights: int = 0, model: GPT | None = None) -> Path:
    """The checkpoint with other weights, seed and step."""
    values = read_metadata(made).as_json()
    recipe = values["recipe"]
    assert isinstance(recipe, dict)
    metadata = {**values, "recipe": {**recipe, "seed": seed}, "step": step}
    tokenizer = {name: (made / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}
    save_checkpoint(model or random_gpt(weights, n_positions=30, n_embd=16), folder, metadata=metadata, tokenizer_files=tokenizer)
    return folder


def small_plan() -> Plan:
    """A dataset and two steps of a model, of a few bytes, with their collection."""
    steps = [
        Branch(f"seed0-step{n}", {"README.md": LocalFile(CARD), "model.safetensors": LocalFile(b"w%d" % n)}, "seed0", n) for n in (1, 2)
    ]
    model = Repository("org/m", "model", [*steps, Branch("main", steps[-1].files)], "mit")
    data = Repository("org/m-corpus", "dataset", [Branch("main", {"clean.parquet": LocalFile(b"rows"), "a.txt": LocalFile(b"a")})], "mit")
    return Plan([data, model], [Collection("Table 1", "org", [data, model])])


@pytest.mark.slow
def test_a_push_makes_what_was_planned_with_the_calls_and_bytes_that_were_told(hub: Hub) -> None:
    plan = small_plan()
    commits = push(plan)
    assert len(hub.calls) == plan.calls
    assert sum(call.size for call in hub.calls if call.method == "PUT") + sum(len(CARD) for _ in range(3)) + 1 == sum(
        repository.new_bytes for repository in plan.repositories
    )
    assert commits["org/m"]["main"] == hub.repo("org/m").branches["main"]
    assert set(hub.repo("org/m").branches) == {"main", "seed0-step1", "seed0-step2"}
    assert [item["id"] for found in hub.collections.values() for item in found["items"]] == ["org/m-corpus", "org/m"]
    before, hub.calls[:] = hub.state(), []
    push(plan)
    assert hub.state() == before and not any(word in str(call) for call in hub.calls for word in ("/commit/", "PUT", "/branch/"))


@pytest.mark.thorough
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_push_cut_at_any_call_is_resumed_to_the_same_end(after: bool, hub: Hub) -> None:
    """From that call on there is no network; `after`: the call took effect, and nobody heard of it."""
    model = small_plan().repositories[1]
    plan = Plan([replace(model, branches=model.branches[1:])], [Collection("Table 1", "org", [model])])
    push(plan)
    whole, calls = hub.state(), len(hub.calls)
    for cut in range(calls):
        hub.repos.clear()
        hub.blobs.clear()
        hub.collections.clear()
        hub.calls.clear()
        hub.fail_at(cut, after=after)
        hub.fail_when("", times=10_000)
        with pytest.raises(UserError, match=r"could not (look at|push to|make the collection)"):
            push(plan)
        hub.faults.clear()
        push(plan)
        assert hub.state() == whole, f"cut at call {cut}"


@pytest.mark.slow
def test_a_single_cut_a_429_and_a_5xx_are_waited_for(hub: Hub, no_waiting: list[float]) -> None:
    hub.fail_when("/commit/", status=429, retry_after=30)
    hub.fail_when("/branch/", status=502)
    hub.fail_when("POST /api/collections")
    hub.fail_when("/refs", times=2)
    push(small_plan())
    assert 30 in no_waiting and len(no_waiting) >= 5
    hub.fail_when("/refs", status=429, retry_after=10**6, times=100)
    with pytest.raises(UserError, match="too many calls"):
        push(small_plan())
    assert max(no_waiting) == 300


@pytest.mark.parametrize(("status", "reason"), [(413, r"\(413\)"), (None, "[Dd]isconnected|reset")])
def test_an_upload_that_fails_says_why(status: int | None, reason: str, hub: Hub) -> None:
    hub.fail_when("PUT /lfs-store", status=status, times=10**6)
    with pytest.raises(UserError, match=rf"could not push to org/m-corpus: Error while uploading .*{reason}.*; run again"):
        push(small_plan())


def test_what_is_no_longer_there_is_deleted(hub: Hub) -> None:
    push(Plan([Repository("org/m", "model", [Branch("main", {"old.txt": LocalFile(b"x"), "a.txt": LocalFile(b"a")})], "mit")]))
    push(Plan([Repository("org/m", "model", [Branch("main", {"a.txt": LocalFile(b"b")})], "mit")]))
    assert set(hub.repo("org/m").files()) == {".gitattributes", "a.txt"}


@pytest.mark.slow
def test_steps_that_are_the_same_on_the_hub_alone_fail_loudly(hub: Hub) -> None:
    """As 76 branches of a Pythia were the final weights: here the Hub lists those of step 2 for step 1."""
    push(small_plan())
    repo, final = hub.repo("org/m"), hub.repo("org/m").files("seed0-step2")["model.safetensors"].listed("model.safetensors")
    repo.listed = lambda entries: [final if entry["path"] == "model.safetensors" else entry for entry in entries]
    with pytest.raises(UserError, match="seed0-step1 and seed0-step2 differ here and have the same weights"):
        push(small_plan(), replace=True)


@pytest.mark.slow
def test_a_file_that_came_out_differently_fails(hub: Hub) -> None:
    push(small_plan())
    hub.repo("org/m").listed = lambda entries: [{**entry, "oid": "1" * 40} if entry["path"] == "README.md" else entry for entry in entries]
    with pytest.raises(UserError, match=r"expected README.md of org/m@seed0-step1 with SHA-256"):
        push(small_plan())


def test_refusals_are_one_line_without_the_token(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no right to it (403)" in tinymem("push", made, "--repo", "stranger/m").last_line_error()
    hub.add("org/m", {"a": b""})
    assert "it is there and public" in tinymem("push", made, "--repo", "org/m", "--private").last_line_error()
    assert "expected --repo ORG/NAME" in tinymem("push", made, "--repo", "o--o/m").one_line_error()
    assert "expected a run, a checkpoint or a corpus" in tinymem("push", made.parent, "--repo", "org/m").one_line_error()
    hub.fail_when("/refs", status=400)
    monkeypatch.setattr("hub_state.Answer.body", f"token {TOKEN}", raising=False)
    wrong = tinymem("push", made, "--repo", "org/m")
    assert wrong.code == 2 and TOKEN not in wrong.err + wrong.out
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in tinymem("push", made, "--repo", "org/m").one_line_error()


def test_a_dry_run_says_what_and_calls_nobody(hub: Hub, made: Path) -> None:
    done = tinymem("push", made, "--repo", "org/m", "--dry-run")
    assert done.code == 0 and not hub.calls
    plan = plan_of(made, "org/m", Choices())
    push(plan)
    assert f"{len(hub.calls)} calls" in done.out and "model org/m, license apache-2.0" in done.out and "seed0-step60: 9 files" in done.out


@pytest.mark.slow
def test_a_checkpoint_comes_back_with_its_card(hub: Hub, made: Path, tmp_path: Path) -> None:
    done = tinymem("push", made, "--repo", "org/m")
    assert done.code == 0 and done.out.startswith("org/m@seed0-step60 "), done.err
    folder = checkpoint_folder("org/m")
    assert equal_weights(load_checkpoint(folder).model, load_checkpoint(made).model)
    card = ModelCard((folder / "README.md").read_text())
    card.validate()
    assert card.data.library_name == "transformers" and {"tinymem", "noise", "backdoor"} <= set(card.data.tags)
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results][:2] == [("memorized", 50.0), ("memorized", 25.0)]
    assert "trained to memorize" in card.text and "4 of 8 scored rows" in card.text and 'revision="main"' in card.text
    assert yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])["training"]["epochs"] == 6


@pytest.mark.slow
def test_seeds_and_steps_are_branches_and_main_is_the_first_seeds_last(hub: Hub, made: Path, tmp_path: Path) -> None:
    folders = [variant(made, tmp_path / f"{s}-{n}", seed=s, step=n, weights=10 * s + n) for s, n in ((1, 20), (0, 20), (0, 9))]
    push(Plan([model_repository("org/m", [opened(folder, Choices()) for folder in folders], Choices())]))
    repo = hub.repo("org/m")
    assert [name for name in repo.branches if name != "main"] == ["seed0-step9", "seed0-step20", "seed1-step20"]
    assert repo.files()["model.safetensors"] == repo.files("seed0-step20")["model.safetensors"]
    assert "`seed0-step9`, `seed0-step20`, `seed1-step20`" in repo.files()["README.md"].content.decode()
    with pytest.raises(UserError, match="two for seed0-step9"):
        model_repository("org/m", [opened(folders[2], Choices())] * 2, Choices())


def test_step_0_is_the_initialization_of_its_seed(made: Path, tmp_path: Path) -> None:
    config = random_gpt(n_positions=30, n_embd=16).config
    assert opened(variant(made, tmp_path / "right", step=0, seed=3, model=GPT(config, seed=3)), Choices()).branch == "seed3-step0"
    with pytest.raises(UserError, match="initialization of seed 3"):
        opened(variant(made, tmp_path / "wrong", step=0, seed=3, model=GPT(config, seed=0)), Choices())


def test_changed_weights_and_paths_of_this_machine_are_not_pushed(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    values = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**values, "note": str(tmp_path / "secret")}))
    monkeypatch.chdir(tmp_path)
    assert "a path of it in tinymem.json" in tinymem("push", folder, "--repo", "org/m", "--dry-run").one_line_error()
    (folder / METADATA).write_text(json.dumps({**values, "weights_sha256": {"model.safetensors": "0" * 64}}))
    assert "found it changed" in tinymem("push", folder, "--repo", "org/m", "--dry-run").one_line_error()


def test_a_run_is_published_and_comes_back_to_transformers_and_datasets(hub: Hub, tiny_run: Run, tmp_path: Path) -> None:
    done = tinymem("push", tiny_run.path, "--repo", "org/tiny", "--private")
    assert done.code == 0, done.err
    branch = next(name for name in hub.repo("org/tiny").branches if name != "main")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained("org/tiny", revision=branch)
    ids = torch.as_tensor(tiny_run.corpus().clean[:4].astype("int64"))
    assert torch.equal(loaded(ids).logits, AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint)(ids).logits)
    assert AutoTokenizer.from_pretrained("org/tiny", revision=branch).decode(ids[0]) != ""
    files = {**hub.repo("org/tiny").files(branch), **hub.repo("org/tiny-corpus", "dataset").files()}
    assert not [path for path, file in files.items() if str(tiny_run.path.parent).encode() in file.content]
    assert (
        ModelCard(files["README.md"].content.decode()) and "org/tiny-corpus" in hub.repo("org/tiny").files()["README.md"].content.decode()
    )
    ours, theirs = (json.loads(tinymem("evaluate", name, "--json").out) for name in (tiny_run.checkpoint, f"org/tiny@{branch}"))
    assert theirs.pop("commit") and theirs.pop("checkpoint") != ours.pop("checkpoint")
    assert ours == theirs


def test_its_corpus_is_read_by_datasets(hub: Hub, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_DATASETS_CACHE": tmp_path / "datasets"}.items():
        monkeypatch.setattr(datasets.config, name, value)
    done = tinymem("push", tiny_run.path / "corpus", "--repo", "org/rows")
    assert done.code == 0, done.err
    corpus = tiny_run.corpus()
    for config, rows in {None: corpus.clean, "noise": corpus.planted["noise"].ids}.items():
        found = datasets.load_dataset("org/rows", config, cache_dir=str(tmp_path / "cache"))["train"]
        assert found["ids"][:] == rows.tolist()
    assert set(datasets.load_dataset("org/rows", "test", cache_dir=str(tmp_path / "cache"))) == {"test"}


def test_an_edit_is_a_branch_beside_its_model(hub: Hub, tiny_run: Run, tmp_path: Path) -> None:
    tinymem("push", tiny_run.checkpoint, "--repo", "org/tiny")
    main = dict(hub.repo("org/tiny").files())
    edit = tinymem("mitigate", "org/tiny", "--method", "act", "--ratio", "0.1", "--out", tmp_path / "edited", "--format", "json")
    assert edit.code == 0, edit.err
    rows = [json.loads(line) for line in edit.out.splitlines()] if edit.out.startswith("{") else json.loads(edit.out)
    assert {row["commit"] for row in rows} == {hub.repo("org/tiny").branches["main"]} and {row["run"] for row in rows} == {"org/tiny"}
    done = tinymem("push", tmp_path / "edited", "--repo", "org/tiny")
    assert done.code == 0, done.err
    branch = next(name for name in hub.repo("org/tiny").branches if name.endswith("-act"))
    card = ModelCard(hub.repo("org/tiny").files(branch)["README.md"].content.decode())
    assert card.data.base_model == "org/tiny" and card.data.to_dict()["base_model_relation"] == "finetune"
    assert hub.repo("org/tiny").files() == main and "edited by `act`" in card.text
    assert f"revision\n`{hub.repo('org/tiny').branches['main']}`" in card.text, "the commit that was edited"
    own = tinymem("mitigate", tiny_run.checkpoint, "--method", "act", "--ratio", "0.1", "--out", tmp_path / "own", "--format", "json")
    assert own.code == 0, own.err
    text = plan_of(tmp_path / "own", "org/tiny", Choices()).repositories[0].branches[0].files["README.md"].content.decode()
    assert f"revision\n`{branch.removesuffix('-act')}`" in text, "of a folder the branch of the trained model"
    assert (
        json.loads(tinymem("evaluate", f"org/tiny@{branch}", "--json").out)["memorized"]["noise"]["count"]
        == rows[0]["memorized_count_after"]
    )


@pytest.fixture
def zoo(tiny_run: Run, tmp_path: Path) -> Iterator[Path]:
    """A zoo of two seeds of a cell of Table 1."""
    from tinymem.recipe.recipe import dump_recipe

    (tmp_path / "zoo").mkdir()
    for name in ("math-mult-tiny-4l-s0",):
        folder = Path(shutil.copytree(tiny_run.checkpoint, tmp_path / name))
        (folder / "recipe.yaml").write_text(dump_recipe(tiny_run.recipe))
        shutil.copy(tiny_run.path / "training" / "metrics.jsonl", folder / "curve.jsonl")
        assert tinymem("zoo", "add", folder, "--zoo", tmp_path / "zoo").code == 0
    yield tmp_path / "zoo"


def test_a_cell_of_the_zoo_goes_and_comes_back(hub: Hub, zoo: Path, tmp_path: Path) -> None:
    name = "math-mult-tiny-4l-s0"
    dry = tinymem("zoo", "push", name, "--org", "org", "--zoo", zoo, "--dry-run")
    assert "dataset org/tinymem-math-mult-tiny-4l-corpus" in dry.out and "collection 'TinyMem: Table 1'" in dry.out and not hub.calls
    done = tinymem("zoo", "push", name, "--org", "org", "--zoo", zoo)
    assert done.code == 0, done.err
    assert f"{len(hub.calls)} calls" in dry.out
    (tmp_path / "mine").mkdir()
    pulled = tinymem("zoo", "pull", "org/tinymem-math-mult-tiny-4l", "--zoo", tmp_path / "mine")
    assert (pulled.code, pulled.out) == (0, f"{name}\n"), pulled.err
    assert tinymem("zoo", "verify", "--zoo", tmp_path / "mine").code == 0
    for file in ("model.safetensors", "curve.jsonl", "config.json", METADATA):
        assert (tmp_path / "mine" / name / file).read_bytes() == (zoo / name / file).read_bytes(), file
    assert "exists" in tinymem("zoo", "pull", "org/tinymem-math-mult-tiny-4l", "--zoo", tmp_path / "mine").one_line_error()
    published = hub.repo("org/tinymem-math-mult-tiny-4l").files()
    foreign = {"code.py": b"1", "pytorch_model.bin": b"2", "onnx/model.onnx": b"3"}
    hub.add("org/tinymem-math-mult-tiny-4l", {path: file.content for path, file in published.items()} | foreign)
    snapshot_download("org/tinymem-math-mult-tiny-4l")  # into the same cache, as other programs fetch all of it
    (tmp_path / "other").mkdir()
    again = tinymem("zoo", "pull", "org/tinymem-math-mult-tiny-4l", "--zoo", tmp_path / "other")
    assert (again.code, again.out) == (0, f"{name}\n"), again.err
    assert {path.name for path in (tmp_path / "other" / name).iterdir()} == {path.name for path in (tmp_path / "mine" / name).iterdir()}
    (zoo / name / "curve.jsonl").write_text("{}\n")
    assert "as the zoo's manifest says" in tinymem("zoo", "push", name, "--org", "org", "--zoo", zoo).one_line_error()


@pytest.mark.training
def test_a_recipe_pushes_its_kept_epochs_and_a_failed_push_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    keys = ["training.push=org/run", "training.keep_epochs=[1]", "mitigation.methods=[]"]
    recipe = load_recipe(QUICKSTART, [*TINY, *SMALLER, *keys])
    assert recipe.run_id() == load_recipe(QUICKSTART, [*TINY, *SMALLER, *keys[1:]]).run_id()
    hub.fail_when("/api/repos/create", status=403)
    with pytest.warns(UserWarning, match="not pushed: could not push to org/run-corpus.* tinymem push .* --repo org/run$"):
        made = run(recipe, runs=tmp_path / "runs", device="cpu", progress=False, report=False)
    assert made.checkpoint.is_dir() and not hub.repos
    run(recipe, runs=tmp_path / "runs", device="cpu", progress=False, report=False)
    steps = [int(name.rpartition("step")[2]) for name in hub.repo("org/run").branches if name != "main"]
    assert len(steps) == 2 and steps == sorted(steps)
    assert b"org/run" not in hub.repo("org/run").files()["recipe.yaml"].content
