"""Every metric of a curve for TensorBoard, through Fabric's logger: scalars named as in metrics.jsonl, by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.runtime.json import Json

FOLDER = "tensorboard"


def make_logger(directory: Path, first_step: int) -> Any:
    """A logger that writes event files under `directory`; entries of an earlier start from `first_step` on are discarded.

    Raises:
        UserError: neither tensorboard nor tensorboardX is installed.
    """
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return TensorBoardLogger(directory / FOLDER, name="", version="", purge_step=first_step)
    except ModuleNotFoundError:
        raise UserError("training.tensorboard needs tensorboard, which is not installed; try: pip install 'tinymem[tensorboard]'") from None


def scalars(point: Json, prefix: str = "") -> dict[str, float]:
    """Flatten nested numbers: `{"memorized": {"noise": {"share": 0.5}}}` -> `{"memorized/noise/share": 0.5}`."""
    return dict(_scalars(point, prefix))


def _scalars(value: Json, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
