"""The main job: a recipe's corpus, model, mitigations and report, in a folder that any later run continues.

    runs/<recipe>-<id>/
      recipe.yaml       the resolved recipe of the last run
      plugins/          copies of the recipe's plugins
      corpus/           Parquet files and a manifest
      training/         metrics.jsonl and resume points
      checkpoint/       the trained model; transformers loads it
      checkpoints/      those of the recipe's training.keep_epochs before the last: epoch-000500, ...
      results/<id>.json one file a method run: the truth
      results.jsonl     the same rows in one file; those of the recipe's benchmark of localization are in localization/
      asked.json        ids of those that the recipe asks for, where earlier recipes on the same weights asked for others
      shown/            what the model says to prompts of memorized rows, before and after each method
      report.html       everything on one page

Each stage is skipped where its result is there already, and each result is written whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymem.errors import UserError
from tinymem.mitigation.methods import check_method_names
from tinymem.recipe.plugins import store_plugins
from tinymem.recipe.recipe import Recipe, dump_recipe, open_recipe
from tinymem.results.curve import CurvePoint, read_curve
from tinymem.results.read import as_json
from tinymem.results.row import Identity, MeasuredRow
from tinymem.results.run_folder import RESULTS, TRAINING_ROWS, read_rows_file
from tinymem.runs.localization_stage import check_localization, localization_stage
from tinymem.runs.lock import lock_of_run
from tinymem.runs.push_stage import push_stage
from tinymem.runs.report_stage import report_stage
from tinymem.runs.stored_rows import collect_rows
from tinymem.runtime.device import processes, resolve_device
from tinymem.runtime.files import require_writable, write_if_changed, write_json
from tinymem.runtime.progress import Bar, Progress, progress_of
from tinymem.runtime.words import counted

if TYPE_CHECKING:
    from tinymem.data.corpus import Corpus
    from tinymem.mitigation.method import MethodCall
    from tinymem.mitigation.run import Subject
    from tinymem.models.gpt2 import GPT


@dataclass(frozen=True)
class Run:
    """A run's folder: recipe, corpus, checkpoint and results."""

    path: Path
    recipe: Recipe

    @property
    def rows(self) -> list[MeasuredRow]:
        """Result rows, one per method run and artifact, in the order of the recipe's methods as far as it names them."""
        path = self.path / RESULTS
        return read_rows_file(path) if path.is_file() else []

    @property
    def checkpoint(self) -> Path:
        """Checkpoint folder of the trained model."""
        return self.path / "checkpoint"

    def model(self, device: str = "cpu", *, verify: bool = True) -> GPT:
        """Load the trained model on a device; `verify` as of `load_checkpoint`."""
        from tinymem.models.checkpoint import load_checkpoint

        model: Any = load_checkpoint(self.checkpoint, device=device, verify=verify).model
        return model

    def corpus(self) -> Corpus:
        """Load the corpus that the model was trained on."""
        from tinymem.data.corpus_files import load_corpus

        return load_corpus(self.path / "corpus")


def open_run(path: Path | str) -> Run:
    """Open the folder of an existing run.

    Raises:
        UserError: no run there, or one of plugins that you have not agreed to run: `load_plugin` agrees.
    """
    path = Path(path)
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"expected a run's folder (with recipe.yaml) at {path}, found none; `tinymem run` makes them under runs/")
    return Run(path, open_recipe(path / "recipe.yaml"))


def run(recipe: Recipe, *, runs: Path | str = "runs", device: str = "auto", progress: Progress | bool = True, report: bool = True) -> Run:
    """Complete a recipe's run: corpus, training, mitigations and report, each skipped where its result exists.

    Args:
        recipe: the recipe of the run.
        runs: folder of all runs.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        progress: whether a terminal or a notebook shows bars; or where they are shown.
        report: whether to write `report.html` (needs matplotlib).

    Raises:
        UserError: bad input, a full disk, or another process at work on the same run.
        Stopped: a signal came while training; the resume point, or the trained model, is written.
    """
    if processes()[1] > 1:
        raise UserError("expected one process for `run`, got several of torchrun; let them `train` the recipe, then run it in one")
    progress, calls = progress_of(progress), method_calls(recipe)
    made = prepare(recipe, Path(runs))
    with lock_of_run(made.path, lambda: _is_complete(made, calls, device)):
        train_stage(made, device=device, progress=progress)
        fresh = mitigation_stage(made, calls, device=device, progress=progress)
        fresh |= _training_rows(made, resolve_device(device))
        fresh |= localization_stage(made.path, recipe.localization, device=device, progress=progress)
        if report and (fresh or not (made.path / "report.html").is_file()):
            report_stage(made.path, progress)
    if counterfactual := recipe.counterfactual_recipe():
        train_only(counterfactual, runs=runs, device=device, progress=progress)
    push_stage(made.path, recipe, progress)
    return made


def train_only(recipe: Recipe, *, runs: Path | str = "runs", device: str = "auto", progress: Progress | bool = True) -> Run:
    """The first half of `run`: corpus, training and checkpoint. Under `torchrun` all processes call this, and train one model together."""
    made = _train_along(recipe, Path(runs), device) if processes()[0] else _train_first(recipe, Path(runs), device, progress_of(progress))
    if counterfactual := recipe.counterfactual_recipe():
        train_only(counterfactual, runs=runs, device=device, progress=progress)
    return made


def _train_first(recipe: Recipe, runs: Path, device: str, progress: Progress) -> Run:
    method_calls(recipe)  # wrong options are found before anything is trained
    made = prepare(recipe, runs)
    with lock_of_run(made.path, lambda: is_trained(runs, recipe)):
        train_stage(made, device=device, progress=progress)
    push_stage(made.path, recipe, progress)
    return made


def is_trained(runs: Path, recipe: Recipe) -> bool:
    """Whether the run of a recipe has all its checkpoints, and its counterfactual, if one is wanted, too."""
    from tinymem.training.checkpoints import RunCheckpoints

    return all(RunCheckpoints(runs / one.run_id(), one).complete() for one in (recipe, recipe.counterfactual_recipe()) if one)


def is_complete(runs: Path, recipe: Recipe, device: str) -> bool:
    """Whether the run of a recipe has all its checkpoints, its methods' results and its page."""
    made = Run(runs / recipe.run_id(), recipe)
    return _is_complete(made, method_calls(recipe), device) and (made.path / "report.html").is_file()


def curve_of(runs: Path, recipe: Recipe) -> list[CurvePoint]:
    """The training curve of a run so far, a point for each measured epoch; see `results.curve`."""
    return read_curve(runs / recipe.run_id() / "training" / "metrics.jsonl")


def prepare(recipe: Recipe, runs: Path) -> Run:
    """Write the resolved recipe to the run's folder, unless it is there."""
    made = Run(runs / recipe.run_id(), recipe)
    store_plugins(recipe.plugins, made.path)
    write_if_changed(made.path / "recipe.yaml", dump_recipe(recipe))
    return made


def train_stage(made: Run, *, device: str, progress: Progress) -> None:
    """Make the corpus and train the checkpoint, unless they exist.

    Raises:
        UserError: a trained run lacks checkpoints that the recipe keeps.
        Stopped: a signal came while training; the resume point, or the trained model, is written.
    """
    _check_text(made)
    from tinymem.training.checkpoints import RunCheckpoints

    checkpoints = RunCheckpoints(made.path, made.recipe)
    if checkpoints.has(made.recipe.training.epochs):
        if missing := checkpoints.missing():
            raise UserError(f"{made.path} was trained without keeping epochs {missing}; train it anew, as with --set name=...")
        progress.say(f"found the trained model in {made.checkpoint}")
        return
    from tinymem.training.loop import train

    corpus = _corpus_stage(made, progress)
    keeper = checkpoints.keeper(corpus)
    trained = train(made.recipe, corpus, made.path / "training", device=resolve_device(device), progress=progress, keeper=keeper)
    keeper.save(trained)
    if trained.stopped:
        raise trained.stopped


def _train_along(recipe: Recipe, runs: Path, device: str) -> Run:
    """Train along in a process of `torchrun` other than the first, on the corpus that the first one makes."""
    from tinymem.data.manifest import MANIFEST
    from tinymem.training.checkpoints import RunCheckpoints
    from tinymem.training.loop import train

    made = Run(runs / recipe.run_id(), recipe)
    if not RunCheckpoints(made.path, recipe).has(recipe.training.epochs):
        while not (made.path / "corpus" / MANIFEST).is_file():  # should the first one fail, torchrun ends this one too
            time.sleep(0.1)
        train(recipe, made.corpus(), made.path / "training", device=resolve_device(device))
    return made


def mitigation_stage(made: Run, calls: Sequence[MethodCall], *, device: str, progress: Progress) -> bool:
    """Run the methods that have no result yet; True if any ran. Rewrites results.jsonl."""
    from tinymem.mitigation.ablation import ModelChanged
    from tinymem.mitigation.run import run_call
    from tinymem.runs.left import planned_calls, why_again
    from tinymem.runs.shown import KeptGenerations

    device = resolve_device(device)
    identity, planned = identity_of(made, device), planned_calls(made.path, made.recipe, calls, device)
    pending = [one for one in planned if one.why]
    if pending:
        require_writable(made.path / "results")  # before what may take hours
        again = f"; again: {why}" if (why := why_again(planned)) else ""
        progress.say(f"{len(planned) - len(pending)} of {counted(len(planned), 'mitigation')} found, {len(pending)} to run{again}")
        with progress.stage("measure the model") as bar:
            subject = subject_of_run(made, device, identity, bar)
        shown = KeptGenerations.of(made.path, subject)
        for one in pending:
            outcome = run_call(subject, one.call, row=one.row, progress=progress)
            shown.keep(one.row, outcome.model)
            write_json(made.path / "results" / f"{one.row}.json", as_json(outcome.rows))
            if isinstance(outcome.error, ModelChanged):
                subject = subject_of_run(made, device, identity)
    changed = collect_rows(made.path, [one.row for one in planned])
    return bool(pending) or changed


def _training_rows(made: Run, device: str) -> bool:
    """Measure what the model, of verified weights, has memorized of its training rows, if nothing is planted there; True if it did."""
    from tinymem.runs.training_rows import training_rows_stage

    if needed := not (made.recipe.artifacts or (made.path / TRAINING_ROWS).is_file()):
        training_rows_stage(made.path, made.model(device, verify=False), made.corpus(), made.recipe)
    return needed


def _is_complete(made: Run, calls: Sequence[MethodCall], device: str) -> bool:
    """Whether the model is trained and every method has its result."""
    from tinymem.runs.left import left_of

    if not is_trained(made.path.parent, made.recipe):
        return False
    left = left_of(made.path, made.recipe, calls, resolve_device(device))
    return not (left.pending or left.localize)


def method_calls(recipe: Recipe) -> list[MethodCall]:
    """Methods of a recipe with their checked options; `all` means every registered method with its defaults.

    Raises:
        UserError: an unknown method, option or metric, also of the benchmark of localization.
    """
    check_method_names(m.name for m in recipe.mitigation.methods if m.name != "all")
    from tinymem.evaluation.metric import chosen_metrics
    from tinymem.mitigation.method import all_methods, parse_call

    chosen_metrics(recipe.evaluation.metrics)
    check_localization(recipe.localization)
    methods = recipe.mitigation.methods
    return [parse_call(name, m.options) for m in methods for name in (all_methods() if m.name == "all" else [m.name])]


def _corpus_stage(made: Run, progress: Progress) -> Corpus:
    from tinymem.data.build import make_corpus
    from tinymem.data.cache import shared_corpus

    if (made.path / "corpus" / "corpus.json").is_file():
        return made.corpus()
    progress.say("making the corpus")
    directory = made.path / "corpus"
    return shared_corpus(
        made.recipe,
        directory,
        make=lambda: make_corpus(made.recipe, directory, progress=progress),
        usable=lambda other: not _text_changed(made.recipe, other),
    )


def _check_text(made: Run) -> None:
    """Raise UserError if the user's text or tokenizer files have changed since the run's corpus was made, whose card is kept up to date."""
    from tinymem.data.corpus_files import state

    if not (made.path / "corpus" / "corpus.json").is_file():
        return
    state(made.recipe.data, made.path / "corpus")
    if _text_changed(made.recipe, made.path / "corpus"):
        raise UserError(f"the text or tokenizer of {made.path} has changed since its corpus was made; give the recipe another name")


def _text_changed(recipe: Recipe, directory: Path) -> bool:
    if recipe.data.kind != "wiki":
        return False
    from tinymem.data.text.corpus import text_changed

    return text_changed(recipe, directory)


def identity_of(made: Run, device: str) -> Identity:
    """Columns that all result rows of a trained run share; `device` as `resolve_device` gives it.

    Raises:
        UserError: a checkpoint without the hash of its corpus, or whose weights are not as they were saved.
    """
    from tinymem.models.metadata import read_metadata, verify_weights
    from tinymem.models.weights import weights_id
    from tinymem.results.checkpoint_columns import checkpoint_columns
    from tinymem.runs.left import key_columns
    from tinymem.runtime.device import describe_device

    metadata = read_metadata(made.checkpoint)
    key = key_columns(metadata, made.path, made.recipe, device)
    return replace(
        checkpoint_columns(made.checkpoint, metadata, made.recipe),
        run=made.path.name,
        model_id=key.model_id,
        weights=weights_id(made.checkpoint, verify_weights(made.checkpoint, metadata)),
        corpus_sha256=key.corpus_sha256,
        seed=key.seed,
        protocol=key.protocol,
        device_type=key.device_type,
        device=describe_device(device),
    )


def subject_of_run(made: Run, device: str, identity: Identity, bar: Bar | None = None) -> Subject:
    """The subject of a trained run's mitigations: its model on the device, measured, with its corpus and optimizer state.

    `identity` holds columns for the result rows, as `identity_of` gives them, which has compared the weights with their hashes.
    `bar` counts the batches of the measurement.
    """
    from tinymem.mitigation.run import subject_of_corpus
    from tinymem.models.metadata import read_metadata
    from tinymem.training.checkpoints import optimizer_state_of

    optimizer = optimizer_state_of(made.checkpoint, read_metadata(made.checkpoint))
    model = made.model(device, verify=False)
    return subject_of_corpus(model, made.corpus(), made.recipe, identity=identity, optimizer_state=optimizer, bar=bar)
