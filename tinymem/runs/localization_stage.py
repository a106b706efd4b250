"""The stage of a run that asks where its model keeps sequences, by the recipe's section `localization`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from tinymem.errors import UserError
from tinymem.recipe.localization import LocalizationOptions
from tinymem.registry import plugin_of
from tinymem.results.localization import rows_file
from tinymem.runtime.files import content_id, content_sha256, read_json, write_json
from tinymem.runtime.progress import Progress

if TYPE_CHECKING:
    from tinymem.mitigation.method import MethodCall

FINISHED = "localized.json"
"""File of a run that names the benchmarks that it has finished: a recipe may have another one tomorrow."""


class Finished(TypedDict):
    """A finished benchmark: ids of its rows, hash of its file of sequences, and each scorer's hash of its file and epoch of its code."""

    rows: list[str]
    sequences: str | None
    code: list[list[str | int | None]]


def check_localization(section: LocalizationOptions | None) -> None:
    """Find wrong scorers and options before anything is trained.

    Raises:
        UserError: as `parsed_calls`.
    """
    if section is not None:
        _calls(section)


def localization_stage(folder: Path, section: LocalizationOptions | None, *, device: str, progress: Progress) -> bool:
    """Run a benchmark on a run's trained model, what the run's folder has left out; True if it was not finished.

    Raises:
        UserError: as `localize`.
    """
    if section is None or is_localized(folder, section):
        return False
    from tinymem.runs.localization import localize

    rows = localize(folder / "checkpoint", section, out=folder, device=device, progress=progress)
    done = Finished(rows=sorted({row.id for row in rows}), sequences=_content(section), code=_code(section))
    write_json(folder / FINISHED, {**_finished(folder), _id(section): done})
    return True


def is_localized(folder: Path, section: LocalizationOptions | None) -> bool:
    """Whether a run has finished a benchmark, if one is wanted: its rows are there, of the sequences and plugins as they are now."""
    if section is None:
        return True
    done = _finished(folder).get(_id(section))
    if done is None or not all(rows_file(folder, row).is_file() for row in done["rows"]):
        return False
    return _content(section) in (None, done["sequences"]) and _code(section) == done["code"]


def _id(section: LocalizationOptions) -> str:
    return content_id(section.model_dump(mode="json"))


def _content(section: LocalizationOptions) -> str | None:
    """Hash of the file of sequences; None without one, also where it is gone."""
    return content_sha256(section.sequences.file) if section.sequences.file else None


def _calls(section: LocalizationOptions) -> list[MethodCall]:
    """The scorers with their options. Imports torch."""
    from tinymem.localization.calls import parsed_calls

    return [call for call, _ in parsed_calls(section)]


def _code(section: LocalizationOptions) -> list[list[str | int | None]]:
    """What else than options decides what scorers say: the hash of a plugin's file, and the epoch of ours."""
    calls = _calls(section)
    plugins = [plugin_of(call.method.function) for call in calls]
    return [[plugin.sha256 if plugin else None, call.config.epoch_of_code()] for call, plugin in zip(calls, plugins, strict=True)]


def _finished(folder: Path) -> dict[str, Finished]:
    """The finished benchmarks by the id of their options; none where the file is damaged, as looking for their rows again is quick."""
    try:
        found = read_json(folder / FINISHED)
    except UserError:
        return {}
    wanted = Finished.__required_keys__
    parts = found.items() if isinstance(found, dict) else ()
    return {key: cast(Finished, part) for key, part in parts if isinstance(part, dict) and wanted <= part.keys()}
