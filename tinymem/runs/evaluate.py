"""`tinymem evaluate`: what a checkpoint has memorized, of its own corpus or of any rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from tinymem.data.corpus import Corpus
from tinymem.data.own_rows import RowFiles
from tinymem.evaluation.evaluator import Evaluator
from tinymem.hub.names import origin_of
from tinymem.mitigation.files_subject import Changes, forbidden_of, own_rows, protocol_of
from tinymem.mitigation.memory import workload_of
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.spread import devices_of
from tinymem.models.weights import DTypeName
from tinymem.recipe.recipe import Recipe
from tinymem.results.share import ShareColumn
from tinymem.runs.subjects import Measuring, changed_recipe, own_corpus
from tinymem.runtime.device import describe_device, resolve_device
from tinymem.runtime.json import JsonObject
from tinymem.runtime.progress import Bar, Progress, progress_of
from tinymem.training.checkpoints import recipe_of


@dataclass(frozen=True)
class CheckpointMeasurement:
    """Memorization and performance of a checkpoint on its own corpus or any rows, as `tinymem evaluate` prints them."""

    checkpoint: str
    protocol: str
    prompt: int | None
    """Tokens given; None where rows of one's own have prompts of different lengths."""
    match: int
    memorized: dict[str, ShareColumn]
    """Share, count and scored rows, by artifact."""
    accuracy: float | None
    accuracy_count: int
    accuracy_tokens: int
    accuracy_ceiling: float | None
    accuracy_by_task: dict[str, JsonObject]
    """Share, count and scored tokens, by task."""
    perplexity: float | None
    exposure: list[JsonObject] | None
    """Exposure of every canary; None, and not printed, for a corpus without canaries."""
    metrics: dict[str, JsonObject]
    """The registered metrics by artifact and name."""
    device: str
    rows_left_out: int | None = None
    """Rows of files that hold nothing or are too short; None, and not printed, for a corpus."""
    commit: str | None = None
    """Commit of the Hub that the checkpoint was fetched at; None, and not printed, for a folder."""

    def as_dict(self) -> JsonObject:
        """The measurement as a dictionary that JSON can hold."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in there.items() if value is not None or name not in ("exposure", "rows_left_out", "commit")}


def evaluate_checkpoint(
    checkpoint: Path | str,
    *,
    files: RowFiles | None = None,
    protocol: str | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
    verify: bool = True,
    dtype: DTypeName = "auto",
    gpus: int = 1,
    progress: Progress | bool = True,
) -> CheckpointMeasurement:
    """Measure a checkpoint on its own corpus, or on rows from files; the arguments are as of `mitigate_checkpoint`.

    Raises:
        UserError: bad input.
    """
    checkpoint, device, files = Path(checkpoint), resolve_device(device, gpus), files or RowFiles()
    needed = workload_of(checkpoint, files, device).measuring
    loaded = load_checkpoint(checkpoint, device=device, needed=needed, verify=verify, dtype=dtype, gpus=gpus)
    with progress_of(progress).stage("evaluate") as bar:
        if files.given:
            return _measured_on_files(loaded, checkpoint, files, protocol, measuring or Measuring(), device, bar)
        recipe, corpus = own_corpus(loaded, checkpoint, files.corpus, progress)
        recipe = changed_recipe(recipe, files, measuring or Measuring(), Changes(protocol))
        evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device, metrics=recipe.evaluation.metrics)
        window = (recipe.evaluation.prompt, recipe.evaluation.match)
        found = _measurement(loaded, checkpoint, evaluator, recipe.protocol, window, device, bar)
        return replace(found, exposure=_exposure_of_canaries(loaded, corpus, recipe))


def _measurement(
    loaded: Checkpoint, checkpoint: Path, evaluator: Evaluator, protocol: str, window: tuple[int | None, int], device: str, bar: Bar
) -> CheckpointMeasurement:
    measured, origin = evaluator.measure(loaded.model, bar), origin_of(checkpoint)
    return CheckpointMeasurement(
        checkpoint=str(origin or checkpoint),
        protocol=protocol,
        prompt=window[0],
        match=window[1],
        memorized={kind: measured.memorized_share(kind).as_dict() for kind in measured.memorized},
        accuracy=measured.accuracy.share,
        accuracy_count=measured.accuracy.count,
        accuracy_tokens=measured.accuracy.rows,
        accuracy_ceiling=evaluator.ceiling.share if evaluator.ceiling else None,
        accuracy_by_task={task: share.of_tokens() for task, share in measured.accuracy_by_task.items()},
        perplexity=measured.perplexity,
        exposure=None,
        metrics=measured.metrics(),
        device=describe_device(device, devices_of(loaded.model)),
        commit=origin.commit if origin else None,
    )


def _measured_on_files(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, protocol: str | None, measuring: Measuring, device: str, bar: Bar
) -> CheckpointMeasurement:
    """Memorization of all rows to forget, and perplexity of all rows to keep."""
    recipe = recipe_of(checkpoint, loaded.metadata)
    own = own_rows(loaded, checkpoint, files, recipe)
    chosen = protocol_of(protocol, recipe)
    evaluator = Evaluator.of_rows(
        own.forget.to(device),
        own.retain.to(device),
        metrics=measuring.request().metrics,
        forbid=forbidden_of(chosen, checkpoint, loaded.model),
    )
    found = _measurement(loaded, checkpoint, evaluator, chosen, (own.prompt, own.match), device, bar)
    return replace(found, rows_left_out=own.left_out)


def _exposure_of_canaries(loaded: Checkpoint, corpus: Corpus, recipe: Recipe) -> list[JsonObject] | None:
    """The exposure of each of the corpus's canaries, if it has any."""
    if "canary" not in corpus.planted:
        return None
    from tinymem.evaluation.exposure import exposures

    return [e.as_dict() for e in exposures(loaded.model, corpus, seed=recipe.seed)]
