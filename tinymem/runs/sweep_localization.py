"""A sweep's section `localization`: the INJ or DEL benchmark on each of its trained models, whose rows lie beside those of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError, one_line
from tinymem.recipe.matrix import parse_shard
from tinymem.results.localization import FOLDER, MODELS
from tinymem.runs.localization import localize
from tinymem.runtime.files import read_json, write_json
from tinymem.runtime.json import JsonObject
from tinymem.runtime.locks import sole_writer
from tinymem.runtime.progress import Progress
from tinymem.sweep.models import Model
from tinymem.sweep.named import row_files
from tinymem.sweep.run import Sweep


@dataclass
class _Known:
    """Names of the models that a sweep's benchmark has finished, and why it failed in others."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


def localize_models(sweep: Sweep, *, device: str, shard: str | None = None, progress: Progress) -> list[str]:
    """Ask for sequences in every trained model, one after the other; what the folder has is not made again.

    Args:
        sweep: with the section `localization`.
        device: `cpu` or `cuda`, with a number or without.
        shard: which share of the models, as `3/16`; None: all.
        progress: where progress is shown.

    Returns:
        why some models could not be asked, a line each.

    Raises:
        UserError: another process writes localization into the sweep's folder; a malformed shard.
    """
    wrong: list[str] = []
    with sole_writer(sweep.folder / FOLDER):
        known = _known(sweep)
        _write_known(sweep, known)
        for model in _share(sweep.models, shard):
            progress.say(f"localization in {model.name}")
            try:
                _localize(sweep, model, device, progress)
            except UserError as error:
                known.done.discard(_title(model))
                known.failed[_title(model)] = one_line(str(error))
                wrong.append(f"localization in {model.name}: {one_line(str(error))}")
            else:
                known.done.add(_title(model))
                known.failed.pop(_title(model), None)
            _write_known(sweep, known)
    return wrong


def left_to_localize(sweep: Sweep) -> int:
    """The number of trained models that a sweep's benchmark has not finished; its folder is told, if no process is at work in it."""
    with suppress(UserError), sole_writer(sweep.folder / FOLDER):
        _write_known(sweep, _known(sweep))
    done = _known(sweep).done
    return sum(model.checkpoint is not None and _title(model) not in done for model in sweep.models)


def _known(sweep: Sweep) -> _Known:
    """What a sweep's benchmark has come to so far; nothing where its options were others, or the file is damaged."""
    try:
        found = read_json(sweep.folder / MODELS)
        if found["benchmark"] != _benchmark(sweep):
            return _Known()
        return _Known(set(map(str, found["done"])), {name: str(why) for name, why in dict(found.get("failed", {})).items()})
    except (UserError, KeyError, TypeError, ValueError):
        return _Known()


def _write_known(sweep: Sweep, known: _Known) -> None:
    models = [_title(model) for model in sweep.models if model.checkpoint is not None]
    values = {"benchmark": _benchmark(sweep), "models": models, "done": sorted(known.done), "failed": known.failed}
    write_json(sweep.folder / MODELS, values)


def _title(model: Model) -> str:
    return f"{model.name} {model.model_id}".strip()


def _benchmark(sweep: Sweep) -> JsonObject:
    assert sweep.recipe.localization is not None
    return dict(sweep.recipe.localization.model_dump(mode="json"))


def _share(models: Sequence[Model], shard: str | None) -> list[Model]:
    trained = [model for model in models if model.checkpoint is not None]
    if shard is None:
        return trained
    number, count = parse_shard(shard)
    return trained[number - 1 :: count]


def _localize(sweep: Sweep, model: Model, device: str, progress: Progress) -> None:
    """One model's benchmark; a model by name takes the rows of the sweep, another its own corpus."""
    recipe, rows = sweep.recipe.localization, sweep.recipe.rows
    assert recipe is not None and model.checkpoint is not None
    files = row_files(rows) if rows is not None and model.recipe is None else RowFiles()
    localize(model.checkpoint, recipe, out=sweep.folder, files=files, device=device, progress=progress)
