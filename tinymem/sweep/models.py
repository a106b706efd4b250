"""The models of a sweep: trained checkpoints with their identities, and models of recipes that are not trained yet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tinymem.errors import CouldNotWrite, UserError
from tinymem.hub.fetch import checkpoint_folder
from tinymem.hub.names import is_hub_name
from tinymem.models.metadata import read_metadata
from tinymem.models.weights import CONFIG, METADATA, SAMPLE, stored_tensors, weight_files, weights_id
from tinymem.recipe.recipe import Recipe, load_matrix
from tinymem.recipe.sizes import planned_parameters
from tinymem.recipe.sweep import SweepRecipe
from tinymem.recipe.sweep_models import ModelMatrix, NamedModel
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.model_columns import model_columns
from tinymem.results.row import Identity
from tinymem.runtime.files import content_id, user_path, write_json
from tinymem.sweep.costs import Size
from tinymem.sweep.named import columns_of_absent, place_of, planned, row_files
from tinymem.sweep.work import FileRows
from tinymem.training.checkpoints import corpus_sha256_of, recipe_of, run_name

HASHES = ".weights.json"


@dataclass(frozen=True)
class Model:
    """A model to edit. Without a checkpoint it can only be counted."""

    recipe: Recipe | None
    """None of a model by name."""
    columns: Identity
    checkpoint: Path | None = None
    run: str = ""
    model_id: str = ""
    corpus_sha256: str = ""
    edited: bool = False
    """Whether a method changed the weights after training: such models differ though their recipes are equal."""
    rows: FileRows | None = None
    size: Size | None = None
    """Rows from files of a model by name, and its sizes with them."""
    in_16_bits: bool = False
    """Whether the folder of a model with its recipe stores some weights in 16 bits: edits, made in fp32, are rounded to them."""
    sampled: int | None = None
    """Clean rows of the sample beside the weights, on which methods run; None without one."""

    @property
    def seed(self) -> int:
        """Seed of the mitigation where the sweep has none."""
        return self.recipe.seed if self.recipe else 0

    @property
    def basis(self) -> Recipe | Size | None:
        """What estimates go by: the recipe, of a sample with its rows; None for a model by name that is not on this machine."""
        if self.recipe is None or self.sampled is None:
            return self.recipe or self.size
        return self.recipe.model_copy(update={"data": self.recipe.data.model_copy(update={"max_rows": self.sampled})})

    @property
    def name(self) -> str:
        """Name in messages: the run and the epoch."""
        return f"{self.run or self.columns.model_name} seed {self.seed} epoch {self.columns.epoch}"


def find_models(sweep: SweepRecipe, runs: Path, folder: Path, *, fetch: bool = True) -> list[Model]:
    """All models of a sweep, each once, in a stable order.

    Args:
        sweep: the recipe.
        runs: folder of the runs of training recipes.
        folder: the sweep's, where hashes of weights are remembered.
        fetch: whether models by name are fetched from the Hub; those that are not here are else only counted.

    Raises:
        UserError: a pattern that matches nothing, a checkpoint without its recipe, or an unreadable file.
    """
    found = [Model(recipe, Identity(), path) for pattern in sweep.checkpoints for path, recipe in _matches(pattern)]
    found += [model for matrix in sweep.models if isinstance(matrix, ModelMatrix) for model in _of_matrix(matrix, runs)]
    found += _named(sweep, [model for model in sweep.models if isinstance(model, NamedModel)], fetch)
    return _identified(found, folder)


def planned_models(matrix: ModelMatrix) -> Iterator[tuple[Recipe, int]]:
    """Recipe and epoch of each model that a matrix names."""
    for recipe in training_recipes(matrix):
        epochs = matrix.epochs or getattr(recipe.training, "keep_epochs", ()) or (recipe.training.epochs,)
        yield from ((recipe, epoch) for epoch in epochs)


def training_recipes(matrix: ModelMatrix) -> list[Recipe]:
    """The recipes of a training recipe's matrix, or the one recipe."""
    return load_matrix(matrix.recipe, list(matrix.overrides))


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoint folders in a folder: itself, or those of a run (the final one and `keep_epochs`); empty for any other folder."""
    if (folder / CONFIG).is_file():
        return [folder]
    kept = sorted(path.parent for path in (folder / "checkpoints").glob(f"*/{CONFIG}"))
    return [*kept, *([folder / "checkpoint"] if (folder / "checkpoint" / CONFIG).is_file() else [])]


def _matches(pattern: str) -> Iterator[tuple[Path, Recipe]]:
    wanted = checkpoint_folder(pattern) if is_hub_name(pattern) else user_path(pattern)
    paths = [wanted] if wanted.exists() else Path(wanted.anchor).glob(str(wanted.relative_to(wanted.anchor)))
    checkpoints = [checkpoint for path in sorted(paths) if path.is_dir() for checkpoint in checkpoints_in(path)]
    if not checkpoints:
        raise UserError(f"expected run or checkpoint folders at '{pattern}', found none; train first, or check the pattern")
    for checkpoint in checkpoints:
        recipe = recipe_of(checkpoint, read_metadata(checkpoint))
        if recipe is None:
            raise UserError(f"{checkpoint} has no {METADATA} with its recipe; a sweep needs models that `tinymem train` made")
        yield checkpoint, recipe


def _of_matrix(matrix: ModelMatrix, runs: Path) -> Iterator[Model]:
    for recipe, epoch in planned_models(matrix):
        place = next(iter(sorted(runs.glob(f"*-{content_id(recipe.model_key())}"))), None)
        checkpoint = _at_epoch(place, epoch) if place else None
        yield Model(recipe, model_columns(recipe, n_parameters=planned_parameters(recipe), epoch=epoch), checkpoint)


def _named(sweep: SweepRecipe, models: list[NamedModel], fetch: bool) -> list[Model]:
    if models and sweep.rows and fetch:
        row_files(sweep.rows)  # before anything is fetched
    places = [(model, place_of(model, fetch=fetch)) for model in models]
    return [_of_place(sweep, model, place) for model, place in places]


def _of_place(sweep: SweepRecipe, model: NamedModel, place: Path | None) -> Model:
    if place is None:
        return Model(None, columns_of_absent(model))
    found = planned(model, place, sweep)
    return Model(None, found.columns, place, run_name(place), rows=found.rows, size=found.size)


def _at_epoch(run: Path, epoch: int) -> Path | None:
    for checkpoint in (run / "checkpoints" / f"epoch-{epoch:06d}", run / "checkpoint"):
        if (checkpoint / CONFIG).is_file():
            metadata = read_metadata(checkpoint)
            columns = checkpoint_columns(checkpoint, metadata, recipe_of(checkpoint, metadata))
            if columns.epoch == epoch:
                return checkpoint
    return None


def _identified(models: list[Model], folder: Path) -> list[Model]:
    """Each configuration, seed and epoch once, and each edited model; those on disk with their hashes and columns."""
    hashes = _Hashes(folder)
    with ThreadPoolExecutor(8) as pool:  # hashing leaves the interpreter's lock alone
        ids = list(pool.map(hashes.of, [model.checkpoint for model in models]))
    hashes.save()
    unique: dict[object, Model] = {}
    for model, model_id in zip(models, ids, strict=True):
        known = _on_disk(model, model_id) if model.checkpoint and model_id else model
        key = _key(known)
        first = unique.setdefault(key, known)
        if first is not known and first.recipe is None:
            warnings.warn(f"{_title(first)} and {_title(known)} have the same weights; only the first counts", stacklevel=2)
        if first.model_id != known.model_id:
            warnings.warn(
                f"{first.checkpoint} and {known.checkpoint} are one configuration and seed with other weights; only the first counts",
                stacklevel=2,
            )
    return list(unique.values())


def _title(model: Model) -> str:
    return str(model.columns.model_name)


def _key(model: Model) -> object:
    """What a model has alone."""
    if model.recipe is None:
        return model.model_id or model.columns.model_name, model.columns.dtype
    return model.model_id if model.edited else (model.columns.epoch, content_id(model.recipe.model_key()), model.corpus_sha256)


def _on_disk(model: Model, model_id: str) -> Model:
    assert model.checkpoint is not None
    if model.recipe is None:
        return replace(model, model_id=model_id)
    metadata = read_metadata(model.checkpoint)
    columns = checkpoint_columns(model.checkpoint, metadata, model.recipe)
    corpus, edited = str(corpus_sha256_of(model.checkpoint, metadata)), metadata.edited_from is not None
    sampled, halved = _sampled(model.checkpoint / SAMPLE), _in_16_bits(model.checkpoint)
    place = model.checkpoint, run_name(model.checkpoint), model_id
    return Model(model.recipe, columns, *place, corpus, edited, in_16_bits=halved, sampled=sampled)


def _in_16_bits(checkpoint: Path) -> bool:
    return any(tensor.is_half for tensor in stored_tensors(checkpoint).values())


def _sampled(sample: Path) -> int | None:
    from tinymem.data.sample import rows_by_table

    return rows_by_table(sample)["clean"] if sample.is_file() else None


class _Hashes:
    """Identities of models, remembered by the sizes and times of the files that they come from."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / HASHES
        try:
            self.known: dict[str, list[int | str]] = json.loads(self.path.read_text())
        except (OSError, ValueError):
            self.known = {}
        self.found: dict[str, list[int | str]] = {}

    def of(self, checkpoint: Path | None) -> str | None:
        """The identity of a checkpoint's model, or None where there is no checkpoint.

        Raises:
            UserError: the checkpoint has no weights.
        """
        if checkpoint is None:
            return None
        key = str(checkpoint.resolve())
        stats = [path.stat() for path in (checkpoint / CONFIG, *weight_files(checkpoint))]
        stamp = [time for stat in stats for time in (stat.st_size, stat.st_mtime_ns)]
        known = self.known.get(key)
        self.found[key] = known if known and known[:-1] == stamp else [*stamp, weights_id(checkpoint)]
        return str(self.found[key][-1])

    def save(self) -> None:
        """Write the hashes to the sweep's folder, if that exists and can be written: they only spare work."""
        if self.path.parent.is_dir() and self.found != self.known:
            with suppress(CouldNotWrite):
                write_json(self.path, self.found)
