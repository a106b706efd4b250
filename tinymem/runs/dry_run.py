"""What runs would do, and what time and disk that takes: from sizes of the recipe, and a probe of the device's speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymem.mitigation.method import MethodCall
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import clean_rows, planned_parameters, planted_rows, test_rows
from tinymem.results.run_folder import load_run
from tinymem.results.store import ROW_BYTES
from tinymem.runs.localization_stage import is_localized
from tinymem.runs.pipeline import Run, curve_of, method_calls, pending_calls
from tinymem.runtime.words import counted
from tinymem.sweep.estimate import Estimator
from tinymem.training.checkpoints import RunCheckpoints

FLOAT, STATES, STATE_PARTS = 4, 2, 3  # bytes; resume points that are kept, each with weights and AdamW's two moments
PAGE_BYTES = 400_000
TOKEN_BYTES = {"math": 1, "wiki": 2}  # in compressed Parquet, at most


@dataclass(frozen=True)
class Estimate:
    """What a run would do.

    Attributes:
        run: name of its folder.
        steps: in words; none where all is done.
        seconds: of training and mitigations, with their measurements.
        bytes: of the files that are not there yet.
    """

    run: str
    steps: list[str]
    seconds: float
    bytes: int


def estimate(recipes: Iterable[Recipe], runs: Path, device: str, *, whole: bool) -> list[Estimate]:
    """What is left of each run, or of its training alone; `device` as `resolve_device` gives it. Nothing is written.

    Raises:
        UserError: an unknown method or option.
    """
    calls = [(recipe, method_calls(recipe) if whole else []) for recipe in recipes]
    return [one for recipe, found in calls for one in _with_counterfactual(recipe, found, runs, device, whole)]


def _with_counterfactual(recipe: Recipe, calls: Sequence[MethodCall], runs: Path, device: str, whole: bool) -> Iterator[Estimate]:
    yield _of_run(recipe, calls, runs, device, whole)
    if counterfactual := recipe.counterfactual_recipe():
        yield _of_run(counterfactual, [], runs, device, False)


def _of_run(recipe: Recipe, calls: Sequence[MethodCall], runs: Path, device: str, whole: bool) -> Estimate:
    made = Run(runs / recipe.run_id(), recipe)
    trained = RunCheckpoints(made.path, recipe).complete()
    pending = pending_calls(made, calls, device) if trained else list(calls)
    page = whole and (bool(pending) or not is_localized(made.path, recipe.localization) or not (made.path / "report.html").is_file())
    rows = load_run(made.path, needs_results=False).rows if (made.path / "recipe.yaml").is_file() else []
    estimator, curve = Estimator(rows, device), curve_of(runs, recipe)
    left = 0.0 if trained else 1 - (curve[-1].epoch / max(1, recipe.training.epochs) if curve else 0)
    seconds = left * estimator.training(recipe) if left else 0.0
    seconds += sum(sum(estimator.run(call.name, call.config.as_json(), recipe)[:2]) for call in pending)
    corpus = (made.path / "corpus" / "corpus.json").is_file()
    needed = (0 if corpus or trained else _corpus_bytes(recipe)) + (0 if trained else _training_bytes(recipe))
    needed += ROW_BYTES * len(pending) * max(1, len(recipe.artifacts)) + (PAGE_BYTES if page else 0)
    localize = whole and not is_localized(made.path, recipe.localization)
    return Estimate(made.path.name, list(_steps(made, corpus or trained, left, pending, page, localize)), seconds, needed)


def _steps(made: Run, corpus: bool, left: float, pending: Sequence[MethodCall], page: bool, localize: bool) -> Iterator[str]:
    recipe = made.recipe
    if not corpus:
        yield "make the corpus"
    if left:
        yield f"train {counted(round(left * recipe.training.epochs), 'epoch')}"
    if pending:
        yield f"run {counted(len(pending), 'method')}"
    if recipe.localization and localize:
        yield f"benchmark {recipe.localization.benchmark} of localization, whose time is not estimated"
    if page:
        yield "report"


def _corpus_bytes(recipe: Recipe) -> int:
    return (clean_rows(recipe) + test_rows(recipe) + planted_rows(recipe)) * recipe.data.row_tokens * TOKEN_BYTES[recipe.data.kind]


def _training_bytes(recipe: Recipe) -> int:
    """Checkpoints, and the resume points that stay."""
    weights, kept = FLOAT * planned_parameters(recipe), len({*recipe.training.keep_epochs} - {recipe.training.epochs})
    return weights * (1 + kept + STATE_PARTS * (STATES + kept))
