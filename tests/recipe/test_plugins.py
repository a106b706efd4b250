"""The `plugins:` of recipes: loaded before the rest is checked, part of the run's id, copied into its folder, refused when changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers import QUICKSTART, SMALLER, TINY, Done, environment, sets, tinymem
from report_rows import make_row, write_results

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.models.metadata import Metadata
from tinymem.recipe.kinds import REGULARIZERS
from tinymem.recipe.plugins import store_plugins
from tinymem.recipe.recipe import Recipe, dump_recipe, load_matrix, load_recipe, parse_recipe
from tinymem.recipe.sweep import load_sweep
from tinymem.registry import load_plugin, loaded_plugin
from tinymem.report.configurations import groups_of
from tinymem.results.collect import Results, load_results
from tinymem.results.model_columns import model_columns
from tinymem.runs.pipeline import open_run, run, train_only
from tinymem.training.checkpoints import recipe_of

pytestmark = [pytest.mark.processes, pytest.mark.training]

DECAY = '''"""Penalty on the squared norm of the token embedding."""

from typing import Literal

from pydantic import Field
from tinymem.training.regularizer import Regularizer
from tinymem.training.regularizer_section import RegularizerSection, regularizer


@regularizer
class EmbeddingDecaySection(RegularizerSection):
    """Penalty on the squared norm of the token embedding."""

    kind: Literal["embedding-decay"] = "embedding-decay"
    strength: float = Field(0.1, ge=0)

    def make(self, rows):
        return EmbeddingDecay(self)


class EmbeddingDecay(Regularizer):
    def __init__(self, section):
        super().__init__()
        self.section = section

    def attach(self, model):
        self._embedding = [model.transformer.wte.weight]

    def penalty(self):
        return self.section.strength * self._embedding[0].square().sum()
'''
HALVER = (
    "from copy import deepcopy\nfrom dataclasses import dataclass\n"
    "from tinymem import MethodConfig, Properties, editor\n"
    "@dataclass(frozen=True)\nclass Config(MethodConfig):\n    factor: float = 0.5\n"
    "@editor('halving', config=Config, properties=Properties(unit='model', order='zeroth'))\n"
    "def halving(model, data, config):\n    edited = deepcopy(model)\n"
    "    for p in edited.parameters(): p.data.mul_(config.factor)\n    return edited\n"
)
WITH_IT = ["training.regularizers=[{kind: embedding-decay}]", "mitigation.methods=[]"]


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with REGULARIZERS.temporary(), UNLEARNERS.temporary():
        yield


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """The quickstart with a plugin in a folder beside it."""
    values = yaml.safe_load(QUICKSTART.read_text())
    (tmp_path / "recipes" / "own").mkdir(parents=True)
    (tmp_path / "recipes" / "own" / "decay.py").write_text(DECAY)
    path = tmp_path / "recipes" / "with-plugin.yaml"
    path.write_text(yaml.safe_dump({"plugins": ["own/decay.py"], **values}))
    return path


def tiny(path: Path, *overrides: str) -> Recipe:
    return load_recipe(path, [*SMALLER, *WITH_IT, *overrides])


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        tiny(path, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def fresh(*words: object) -> Done:
    """The command line as in a process that has loaded no plugin yet."""
    with REGULARIZERS.temporary(), UNLEARNERS.temporary():
        return tinymem(*words)


@pytest.mark.thorough
def test_a_finished_run(recipe_file: Path, tmp_path: Path) -> None:
    light = "training.regularizers=[{kind: embedding-decay, strength: 0}]"
    with REGULARIZERS.temporary():
        recipe = load_recipe(recipe_file, [*TINY, light, "mitigation.methods=[{act: {ratio: 0.05}}]"])
        made = run(recipe, runs=tmp_path / "runs", device="cpu")
    assert "embedding-decay" not in REGULARIZERS.names()
    shutil.rmtree(recipe_file.parent)  # the run's folder is enough from here on
    copy = made.path / "plugins" / "decay.py"
    assert copy.read_text() == DECAY
    stored = yaml.safe_load((made.path / "recipe.yaml").read_text())["plugins"]
    assert stored == [{"file": "plugins/decay.py", "sha256": recipe.plugins[0].sha256}]
    assert json.loads((made.checkpoint / "tinymem.json").read_text())["recipe"]["plugins"] == stored
    for words in (("report", made.path), ("mitigate", made.checkpoint, "--method", "act", "--ratio", 0.1), ("evaluate", made.checkpoint)):
        done = fresh(*words)
        assert done.code == 0, done.err
    copy.write_text(DECAY + "# changed\n")
    for words in (("mitigate", made.checkpoint, "--method", "act", "--ratio", 0.1), ("run", made.path / "recipe.yaml")):
        assert "found it changed" in fresh(*words).one_line_error()
    copy.unlink()
    assert "found none; give the file with --plugin" in fresh("evaluate", made.checkpoint).one_line_error()
    (tmp_path / "given.py").write_text(DECAY)
    assert fresh("evaluate", made.checkpoint, "--plugin", tmp_path / "given.py").code == 0


def test_a_strangers_plugin_runs_only_where_its_user_says_so(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "it-ran"
    own = recipe_file.parent / "own" / "decay.py"
    own.write_text(f"{DECAY}\nimport pathlib\n\npathlib.Path({str(mark)!r}).touch()\n")
    with REGULARIZERS.temporary():
        made = train_only(tiny(recipe_file), runs=tmp_path / "runs")
    with REGULARIZERS.temporary():
        assert open_run(made.path).recipe.run_id() == made.recipe.run_id(), "a run of one's own opens without a word"
    theirs = made.path.rename(tmp_path / "theirs")
    copy, checkpoint = theirs / "plugins" / "decay.py", theirs / "checkpoint"
    (theirs / "results.jsonl").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    mark.unlink()
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(yaml.safe_dump({"name": "theirs", "checkpoints": [str(theirs)], "methods": ["act"], "grid": "none"}))
    opened: list[tuple[object, ...]] = [
        ("evaluate", checkpoint),
        ("mitigate", checkpoint, "--method", "act"),
        ("report", theirs, "--format", "html", "--out", tmp_path / "page.html"),
        ("run", theirs / "recipe.yaml", "--runs", tmp_path / "runs"),
        ("train", theirs / "recipe.yaml", "--runs", tmp_path / "runs"),
        ("sweep", sweep, "--out", tmp_path / "sweep"),
        ("landscape", checkpoint, "--out", tmp_path / "landscape"),
    ]
    for words in opened:
        assert f"read it, then give --plugin {copy}" in fresh(*words).one_line_error(), words
    with pytest.raises(UserError, match="expected your consent"):
        open_run(theirs)
    assert not mark.exists(), "it was run without consent"
    done = fresh("evaluate", checkpoint, "--plugin", copy)
    assert done.code == 0 and mark.exists(), done.err
    assert fresh("evaluate", checkpoint).code == 0, "consent is remembered"


@pytest.mark.parametrize("plugins", ["plugins/decay.py", ["plugins/decay.py"], [3]])
def test_a_stored_recipe_names_no_file_by_its_path(plugins: object, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "decay.py").write_text(DECAY)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"plugins": plugins}))
    with pytest.raises(UserError, match="by file and hash"):
        open_run(tmp_path)
    with pytest.raises(UserError, match="by file and hash"):
        recipe_of(tmp_path / "checkpoint", Metadata.model_validate({"recipe": {"plugins": plugins}}))
    assert "embedding-decay" not in REGULARIZERS.names()


def test_the_regularizer_acts(recipe_file: Path, tmp_path: Path) -> None:
    norms = [
        train_only(tiny(recipe_file, override), runs=tmp_path / "runs").model().transformer.wte.weight.norm().item()
        for override in ("training.regularizers=[]", "training.regularizers.embedding-decay.strength=3")
    ]
    assert norms[1] < 0.9 * norms[0]


def test_the_content_is_part_of_the_id(recipe_file: Path, tmp_path: Path) -> None:
    plain = load_recipe(QUICKSTART, [*SMALLER, "mitigation.methods=[]"])
    assert "plugins" not in plain.model_key() and "plugins" not in plain.corpus_key()
    recipe = tiny(recipe_file)
    assert recipe.corpus_key() == plain.corpus_key(), "a regularizer shapes no row"
    assert recipe.model_key()["plugins"] == [recipe.plugins[0].sha256]
    moved = shutil.move(recipe_file.parent, tmp_path / "moved")
    assert tiny(Path(moved) / recipe_file.name).run_id() == recipe.run_id()
    (Path(moved) / "own" / "decay.py").write_text(DECAY.replace("square", "abs"))
    with pytest.raises(UserError, match="registered already"):  # in one process the first stays
        tiny(Path(moved) / recipe_file.name)


def test_another_content_is_another_run(recipe_file: Path) -> None:
    with REGULARIZERS.temporary():
        first = tiny(recipe_file)
    (recipe_file.parent / "own" / "decay.py").write_text(DECAY.replace("square", "abs"))
    second = tiny(recipe_file)
    assert first.run_id() != second.run_id() and first.name == second.name


def test_runs_of_two_versions_of_a_plugin_are_read_together(recipe_file: Path, tmp_path: Path) -> None:
    folders = []
    for version, option in ((DECAY, "strength"), (DECAY.replace("strength", "weight"), "weight")):
        (recipe_file.parent / "own" / "decay.py").write_text(version)
        with REGULARIZERS.temporary():
            recipe = load_recipe(recipe_file, [*SMALLER, f"training.regularizers=[{{kind: embedding-decay, {option}: 0.3}}]"])
            folders.append(tmp_path / "runs" / recipe.run_id())
            write_results(folders[-1], [make_row("act", run=recipe.run_id())])
            (folders[-1] / "recipe.yaml").write_text(dump_recipe(recipe))
            store_plugins(recipe.plugins, folders[-1])
    for words in (folders, [tmp_path / "runs"], [*folders, "--plugin", folders[1] / "plugins" / "decay.py"]):
        done = fresh("report", *words)
        assert done.code == 0 and "Variants: 2 runs" in done.out, done.err
    with REGULARIZERS.temporary():
        for _ in range(2):
            read = [record.recipe for record in load_results(folders).records]
            sections = [recipe.training.regularizers[0].model_dump(exclude={"kind"}) for recipe in read if recipe]
            assert sections == [{"strength": 0.3}, {"weight": 0.3}], "each with the options of its own version"
        with pytest.raises(UserError, match=r"registered already by .*decay\.py, and .*decay\.py has it too; .* leave one of them out"):
            open_run(folders[1])  # to be run, it needs the name for itself


def test_models_trained_with_two_versions_of_a_regularizer_are_never_averaged(recipe_file: Path) -> None:
    names = []
    for version in (DECAY, DECAY.replace("square()", "abs()")):
        (recipe_file.parent / "own" / "decay.py").write_text(version)
        with REGULARIZERS.temporary():
            recipe = load_recipe(recipe_file, [*SMALLER, "training.regularizers=[{kind: embedding-decay, strength: 0.3}]"])
            names.append(model_columns(recipe, n_parameters=None, epoch=None).regularizer)
            [hash_of_it] = {plugin.sha256[:8] for plugin in recipe.plugins if plugin.file.endswith("decay.py")}
            assert names[-1] == f"embedding-decay(strength=0.3, plugin={hash_of_it})"
    trained = [make_row("none", regularizer=name, seed=seed, model_id=f"{name}{seed}") for name in (None, *names) for seed in (0, 1)]
    [group] = groups_of(Results([], trained))
    assert [(found.method, found.options, found.seeds) for found in group.regularized["noise"]] == [
        ("embedding-decay", name, 2) for name in names
    ]


def test_a_kind_of_the_command_line_joins_the_recipe(recipe_file: Path, tmp_path: Path) -> None:
    listed = tiny(recipe_file)
    load_plugin(recipe_file.parent / "own" / "decay.py")
    given = load_recipe(QUICKSTART, [*SMALLER, *WITH_IT])
    assert given.plugins == listed.plugins and given.run_id() == listed.run_id()
    made = train_only(given, runs=tmp_path / "runs")
    assert open_run(made.path).recipe == given


def test_round_trips(recipe_file: Path) -> None:
    recipe = tiny(recipe_file)
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    assert loaded_plugin(recipe.plugins[0].sha256) is not None
    again = tiny(recipe_file)
    assert type(again.training.regularizers[0]) is type(recipe.training.regularizers[0]), "a loaded plugin is not run twice"
    assert [r.plugins for r in load_matrix(recipe_file, [*SMALLER, *WITH_IT, "matrix={seed: [0, 1]}"])] == [recipe.plugins] * 2


def test_refusals(recipe_file: Path) -> None:
    assert "unknown regularizer 'embedding-decay'" in refusal(recipe_file, "plugins=[]")
    assert "found none at" in refusal(recipe_file, "plugins=[none.py]")
    assert "as in [my_metric.py], got 3" in refusal(recipe_file, "plugins=[3]")
    assert "as in [my_metric.py]" in refusal(recipe_file, "plugins=[{file: own/decay.py, sha256: short}]")
    shutil.copytree(recipe_file.parent / "own", recipe_file.parent / "plugins")
    assert "found it changed" in refusal(recipe_file, f"plugins=[{{file: plugins/decay.py, sha256: {'a' * 64}}}]")
    (recipe_file.parent / "decay.py").write_text("# another plugin of that name")
    assert "got two decay.py; rename one" in refusal(recipe_file, "plugins=[own/decay.py, decay.py]")
    (recipe_file.parent / "broken.py").write_text("1 / 0")
    assert "failed while it was read: ZeroDivisionError" in refusal(recipe_file, "plugins=broken.py")
    assert tiny(recipe_file, "plugins=own/decay.py").plugins == tiny(recipe_file).plugins


@pytest.mark.thorough
def test_many_runs_and_their_processes(recipe_file: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = (recipe_file, *sets([*SMALLER, *WITH_IT, "matrix={seed: [0, 1]}"]), "--runs", runs, "--device", "cpu", "--jobs", 2)
    done = fresh("train", *words)
    assert done.code == 0, done.err
    assert len(list(runs.glob("*/plugins/decay.py"))) == 2
    given = (QUICKSTART, *words[1:], "--plugin", recipe_file.parent / "own" / "decay.py")
    assert "2 runs, 2 done in" in fresh("train", *given, "--list").out, "the same runs, by --plugin"


@pytest.mark.thorough
def test_a_sweep(recipe_file: Path, tmp_path: Path) -> None:
    trained = train_only(tiny(recipe_file), runs=tmp_path / "runs")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "halving.py").write_text(HALVER)
    sweep = tmp_path / "sweeps" / "own.yaml"
    values = {"name": "own", "plugins": ["halving.py"], "checkpoints": [str(trained.path)], "methods": ["halving"], "grid": "none"}
    sweep.write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    words = ("sweep", sweep, "--out", out, "--device", "cpu", "--jobs", 1)
    done = fresh(*words)
    assert done.code == 0 and "1 run: 1 refused" in done.out, done.err + done.out  # so short a run memorizes nothing
    assert (out / "plugins" / "halving.py").read_text() == HALVER
    assert "1 done before, 0 to do" in fresh(*words).err
    (tmp_path / "sweeps" / "halving.py").write_text(HALVER.replace("mul_", "div_"))
    assert "0 done before, 1 to do" in fresh(*words).err, "another content is another run"
    assert load_sweep(sweep).plugins[0].file == "plugins/halving.py"


@pytest.mark.parametrize("file", ["plugins/../mine.py", "/tmp/mine.py", "mine.py", "plugins/deep/mine.py"])
def test_a_named_plugin_lies_in_the_plugins_folder_alone(file: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected plugins to be Python files"):
        parse_recipe({"plugins": [{"file": file, "sha256": "0" * 64}]}, tmp_path)
