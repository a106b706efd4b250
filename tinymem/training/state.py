"""Resume points: weights, optimiser, regularisers and counters of a training run, each a folder that is whole or absent.

Two are kept. A damaged one (its hash differs) is passed over, with a warning, for the one before. Data order needs no state: each
epoch's permutation is a function of seed and epoch.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from tinymem.errors import UserError
from tinymem.files import file_sha256, new_directory, read_json, remove_leftovers, write_bytes, write_json
from tinymem.models.checkpoint import read_tensors
from tinymem.training.optimizer import load_optimizer_tensors, optimizer_tensors

TENSORS, COUNTERS = "state.safetensors", "state.json"
KEPT = 2


@dataclass(frozen=True)
class TrainingState:
    """A resume point as read from disk."""

    epoch: int
    step: int
    seconds: float
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    regularizers: dict[str, Tensor] = field(default_factory=dict)


def save_state(
    directory: Path, model: nn.Module, optimizer: Optimizer, regularizers: nn.Module | None = None, *, epoch: int, step: int, seconds: float
) -> None:
    """Write the resume point after `epoch` finished epochs and drop all but the newest two."""
    tensors = {f"model/{name}": t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    tensors |= {f"optimizer/{name}": t.detach().cpu().contiguous() for name, t in optimizer_tensors(optimizer).items()}
    if regularizers is not None:
        tensors |= {f"regularizers/{name}": t.detach().cpu().contiguous() for name, t in regularizers.state_dict().items()}
    with new_directory(directory / f"epoch-{epoch:06d}") as temporary:
        write_bytes(temporary / TENSORS, save(tensors))
        counters = {"epoch": epoch, "step": step, "seconds": seconds, "sha256": file_sha256(temporary / TENSORS)}
        write_json(temporary / COUNTERS, counters)
    for old in _points(directory)[KEPT:]:
        shutil.rmtree(old)


def load_state(directory: Path) -> TrainingState | None:
    """The newest whole resume point, or None."""
    remove_leftovers(directory)
    for point in _points(directory):
        try:
            return _read(point)
        except UserError as error:
            warnings.warn(f"passing over a damaged resume point: {error}", stacklevel=2)
    return None


def restore(state: TrainingState, model: nn.Module, optimizer: Optimizer, regularizers: nn.Module | None = None) -> None:
    """Put a resume point into a model, its optimiser and its regularisers."""
    model.load_state_dict(state.model)
    if regularizers is not None:
        regularizers.load_state_dict(state.regularizers)
    load_optimizer_tensors(optimizer, state.optimizer)


def _points(directory: Path) -> list[Path]:
    return sorted(directory.glob("epoch-*"), reverse=True)


def _read(point: Path) -> TrainingState:
    counters: dict[str, Any] = read_json(point / COUNTERS, "resume point")
    path = point / TENSORS
    if not path.is_file() or file_sha256(path) != counters.get("sha256"):
        raise UserError(f"expected {path} as its hash says, found it missing or changed")
    tensors = read_tensors(path)
    model, optimizer, regularizers = (_under(part, tensors) for part in ("model/", "optimizer/", "regularizers/"))
    return TrainingState(counters["epoch"], counters["step"], counters["seconds"], model, optimizer, regularizers)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
