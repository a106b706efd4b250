"""Models by name in a sweep: of any family, from the Hub or a folder, on rows from files. Planned here, and loaded by a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tinymem.data.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.data.token_arrays import RawLayout
from tinymem.errors import UserError
from tinymem.hub.fetch import cached_folder, checkpoint_folder
from tinymem.hub.names import asked_revision, hub_name, is_hub_name, parse_size
from tinymem.mitigation.files_subject import Changes, files_id, fraction_of, identity_of, protocol_of, rows_id_of, subject_of_files
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.subject import Subject
from tinymem.models.checkpoint import load_checkpoint, planned_dtype
from tinymem.models.metadata import read_metadata
from tinymem.models.weights import CONFIG, weights_id
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.sizes import row_flops
from tinymem.recipe.sweep import SweepRecipe
from tinymem.recipe.sweep_models import NamedModel, SweepRows
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.row import Identity
from tinymem.results.step import step_of
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import read_object, user_path
from tinymem.runtime.json import JsonObject
from tinymem.sweep.costs import Size
from tinymem.sweep.work import FileRows, ModelTask
from tinymem.training.checkpoints import recipe_of

LAYERS, WIDTH, INNER = (
    ("num_hidden_layers", "n_layer", "num_layers"),
    ("hidden_size", "n_embd"),
    ("intermediate_size", "n_inner", "ffn_dim"),
)
ANY_ID = 2**31


@dataclass(frozen=True)
class Named:
    """A model by name that is on this machine, with the rows that it is planned with.

    Attributes:
        checkpoint: its folder.
        columns: of its rows.
        rows: what a worker reads.
        size: for estimates.
    """

    checkpoint: Path
    columns: Identity
    rows: FileRows
    size: Size


def row_files(rows: SweepRows) -> RowFiles:
    """The files of a recipe's section `rows`.

    Raises:
        UserError: a file that is missing, or a layout that is none.
    """
    for key, path in (("forget", rows.forget), ("retain", rows.retain)):
        if not path.exists():
            raise UserError(f"expected a file at {path} for rows.{key}, found none; paths are relative to where the command runs")
    raw = RawLayout.parse(rows.raw) if rows.raw else None
    return RowFiles(rows.forget, rows.retain, rows.prompt, rows.match, rows.column, rows.bos, rows.strict, None, rows.forget_rows, raw)


def place_of(model: NamedModel, *, fetch: bool) -> Path | None:
    """The folder of a model by name: its own, or that of the Hub's client, which is asked for what is missing if `fetch` is set.

    Raises:
        UserError: no model there, or what cannot be fetched.
    """
    if model.revision is None and not is_hub_name(model.name):
        folder = user_path(model.name)
        if not (folder / CONFIG).is_file():
            raise UserError(f"expected ORG/NAME of the Hub or a model's folder for models.name, got '{model.name}'; there is no {CONFIG}")
        return folder.resolve()
    if not fetch:
        return cached_folder(hub_name(model.name, model.revision))
    return checkpoint_folder(model.name, revision=model.revision, max_size=parse_size(model.max_size) if model.max_size else None)


def columns_of_absent(model: NamedModel) -> Identity:
    """The columns of a model of the Hub that are known before it is fetched."""
    revision = asked_revision(model.name, model.revision)
    return Identity(model_name=str(hub_name(model.name, model.revision)), revision=revision, step=step_of(revision or ""))


def planned(model: NamedModel, checkpoint: Path, sweep: SweepRecipe) -> Named:
    """A model by name with its rows, of which files and headers are read, and no weights.

    Raises:
        UserError: files that cannot be read, or do not fit the model's vocabulary.
    """
    assert sweep.rows is not None, "the recipe was checked"
    rows = sweep.rows.model_copy(update={key: getattr(sweep.rows, key).absolute() for key in ("forget", "retain")})
    files, metadata, config = row_files(rows), read_metadata(checkpoint), read_object(checkpoint / CONFIG, "model configuration")
    recipe = recipe_of(checkpoint, metadata)
    own = read_own_rows(
        files, checkpoint, _whole(config, ("vocab_size",), ANY_ID), (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else None
    )
    fraction = fraction_of(sweep.forget_fraction, recipe)
    columns = replace(
        checkpoint_columns(checkpoint, metadata, recipe, asked_revision(model.name, model.revision)),
        corpus_sha256=metadata.corpus_sha256,
        protocol=protocol_of(sweep.protocol, recipe),
        forget_fraction=fraction,
        rows_id=rows_id_of(own, files),
        dtype=planned_dtype(checkpoint, model.dtype),
    )
    described: FileRows = {
        "files": rows.model_dump(mode="json"),
        "id": files_id(own, fraction, files),
        "dtype": model.dtype,
        "gpus": model.gpus,
    }
    return Named(checkpoint, columns, described, _size(config, columns.n_parameters or 0, own))


def load_named(model: ModelTask, rows: FileRows, seed: int, device: str, needed: Callable[[nn.Module], int]) -> Subject:
    """Load and measure a model by name, as `tinymem mitigate` does with the same files; `needed`: as of `load_checkpoint`.

    Raises:
        UserError: weights or rows that changed since the sweep was planned, or as `subject_of_files`.
    """
    checkpoint, planned = Path(model.checkpoint), model.identity
    loaded = load_checkpoint(checkpoint, device=resolve_device(device, rows["gpus"]), needed=needed, dtype=rows["dtype"], gpus=rows["gpus"])
    model_id = weights_id(checkpoint, loaded.hashes)
    changes = Changes(planned.protocol, model.forget_fraction, seed)
    identity = identity_of(loaded, checkpoint, device, planned.revision)
    identity = replace(identity, weights=model_id, device_type=planned.device_type)
    subject, found = subject_of_files(
        loaded, checkpoint, row_files(SweepRows.model_validate(rows["files"])), changes, identity, _request(model)
    )
    if (model_id, found) != (planned.model_id, rows["id"]):
        raise UserError(f"expected the weights and rows that the sweep was planned with for {checkpoint}, got others; start it again")
    return replace(subject, dtypes=loaded.dtypes) if loaded.dtypes else subject


def request_of(metrics: list[str] | None, robustness: JsonObject | None) -> MeasurementRequest:
    """What is measured of a model by name: there is no recipe to decide what a sweep leaves open."""
    return MeasurementRequest(tuple(metrics or (DEFAULT,)), (), None if robustness is None else Robustness.model_validate(robustness))


def _request(model: ModelTask) -> MeasurementRequest:
    return request_of(model.measuring["metrics"], model.measuring["robustness"])


def _whole(config: JsonObject, names: tuple[str, ...], default: int) -> int:
    """The first whole number that a configuration has by one of some names."""
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int)), default)


def _size(config: JsonObject, parameters: int, own: OwnRows) -> Size:
    """Sizes of model and rows, as far as estimates need them: of a gated layer one of the two matrices is not counted."""
    layers, width = _whole(config, LAYERS, 1), _whole(config, WIDTH, 1)
    inner, tokens = _whole(config, INNER, 4 * width), own.forget.ids.shape[1]
    return Size(
        n_layer=layers,
        neurons=layers * inner,
        mlp_weights=2 * layers * width * inner,
        tokens=tokens,
        match=own.match,
        forget=len(own.forget),
        retain=len(own.retain) // 2,
        clean=len(own.retain) // 2,
        scored=len(own.forget) + len(own.retain) - len(own.retain) // 2,
        row_flops=row_flops(parameters, tokens),
    )
