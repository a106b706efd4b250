"""The stage of a run that asks where its model keeps sequences, by the recipe's section `localization`."""

from __future__ import annotations

import json
from pathlib import Path

from tinymem.recipe.localization import LocalizationOptions
from tinymem.runtime.files import content_id, write_json
from tinymem.runtime.progress import Progress

FINISHED = "localized.json"
"""File of a run that names the benchmarks that it has finished: a recipe may have another one tomorrow."""


def check_localization(section: LocalizationOptions | None) -> None:
    """Find wrong scorers and options before anything is trained.

    Raises:
        UserError: as `parsed_calls`.
    """
    if section is not None:
        from tinymem.localization.calls import parsed_calls

        parsed_calls(section)


def localization_stage(folder: Path, section: LocalizationOptions | None, *, device: str, progress: Progress) -> bool:
    """Run a benchmark on a run's trained model, what the run's folder has left out; True if it was not finished.

    Raises:
        UserError: as `localize`.
    """
    if section is None or is_localized(folder, section):
        return False
    from tinymem.runs.localization import localize

    localize(folder / "checkpoint", section, out=folder, device=device, progress=progress)
    write_json(folder / FINISHED, sorted({*_finished(folder), _id(section)}))
    return True


def is_localized(folder: Path, section: LocalizationOptions | None) -> bool:
    """Whether a run has finished a benchmark, if one is wanted."""
    return section is None or _id(section) in _finished(folder)


def _id(section: LocalizationOptions) -> str:
    return content_id(section.model_dump(mode="json"))


def _finished(folder: Path) -> list[str]:
    path = folder / FINISHED
    return list(map(str, json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else []
