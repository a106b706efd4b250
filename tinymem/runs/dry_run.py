"""What runs would do, and what time and disk that takes: from sizes of the recipe, and a probe of the device's speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinymem.data.build import refuse_more_rows_than_there_are
from tinymem.mitigation.method import MethodCall
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import clean_rows, planned_parameters, planted_rows, test_rows
from tinymem.results.run_folder import load_run
from tinymem.results.store import ROW_BYTES
from tinymem.runs.left import Left, left_of
from tinymem.runs.pipeline import method_calls
from tinymem.sweep.estimate import Estimator, Speeds

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
        why: why methods that were measured before run again; empty if none does.
    """

    run: str
    steps: list[str]
    seconds: float
    bytes: int
    why: str = ""


def estimate(recipes: Iterable[Recipe], runs: Path, device: str, *, whole: bool) -> list[Estimate]:
    """What is left of each run, with its time and disk.

    Raises:
        UserError: as of `left_of_all`; or more rows to plant than a corpus has.
    """
    speeds: Speeds = {}  # probed once for all runs of a size, which then take the same time
    return [_estimate(left, runs, device, speeds) for left in left_of_all(recipes, runs, device, whole=whole)]


def left_of_all(recipes: Iterable[Recipe], runs: Path, device: str, *, whole: bool) -> list[Left]:
    """What is left of each run and of its counterfactual, or of their training alone; `device` as `resolve_device` gives it.

    Raises:
        UserError: an unknown method or option.
    """
    calls = [(recipe, method_calls(recipe) if whole else []) for recipe in recipes]
    return [left for recipe, found in calls for left in _with_counterfactual(recipe, found, runs, device, whole)]


def _with_counterfactual(recipe: Recipe, calls: Sequence[MethodCall], runs: Path, device: str, whole: bool) -> Iterator[Left]:
    yield left_of(runs / recipe.run_id(), recipe, calls, device, whole=whole)
    if counterfactual := recipe.counterfactual_recipe():
        yield left_of(runs / counterfactual.run_id(), counterfactual, [], device, whole=False)


def _estimate(left: Left, runs: Path, device: str, speeds: Speeds) -> Estimate:
    recipe, run = left.recipe, runs / left.recipe.run_id()
    if left.corpus:
        refuse_more_rows_than_there_are(recipe)
    rows = load_run(run, needs_results=False).rows if (run / "recipe.yaml").is_file() else []
    estimator = Estimator(rows, device, speeds=speeds)
    seconds = left.share * estimator.training(recipe) if left.share else 0.0
    seconds += sum(sum(estimator.run(one.call.name, one.call.config.as_json(), recipe)[:2]) for one in left.pending)
    needed = (_corpus_bytes(recipe) if left.corpus else 0) + (_training_bytes(recipe) if left.share else 0)
    needed += ROW_BYTES * len(left.pending) * max(1, len(recipe.artifacts)) + (PAGE_BYTES if left.page else 0)
    return Estimate(run.name, list(left.steps()), seconds, needed, left.why)


def _corpus_bytes(recipe: Recipe) -> int:
    return (clean_rows(recipe) + test_rows(recipe) + planted_rows(recipe)) * recipe.data.row_tokens * TOKEN_BYTES[recipe.data.kind]


def _training_bytes(recipe: Recipe) -> int:
    """Checkpoints, and the resume points that stay."""
    weights, kept = FLOAT * planned_parameters(recipe), len({*recipe.training.keep_epochs} - {recipe.training.epochs})
    return weights * (1 + kept + STATE_PARTS * (STATES + kept))
