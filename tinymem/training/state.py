"""Resume points: everything that a training run needs to continue, each a folder that is whole or absent.

    state/epoch-000050/                   after 50 whole epochs
    state/epoch-000050-step-000120/       in the middle of the next: 120 steps of it are done
        state.safetensors                 weights, optimizer, regularizers, the epoch's loss so far; or, where that is more than a shard,
        state.safetensors.00001-of-00006  its bytes in pieces
        state.json                        counters, the hash of each piece, and a hash of all that

The newest two are kept, and those of the recipe's `keep_epochs`. A damaged one (a hash differs) is skipped, with a warning, for the one
before. Data order needs no state: each epoch's permutation is a function of seed and epoch, and nothing else draws at random.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from tinymem.errors import UserError
from tinymem.runtime.files import content_id, new_directory, read_object, remove_leftovers, write_bytes, write_json
from tinymem.training.optimizer import load_optimizer_tensors

TENSORS, COUNTERS = "state.safetensors", "state.json"
COUNTED = ("epoch", "step", "in_epoch", "seconds", "busy_seconds", "precision", "threads", "ways")
NEWEST = 2
SHARD_BYTES = 16 * 2**20
NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")


@dataclass(frozen=True)
class TrainingState:
    """A resume point: counters, and the tensors of model, optimizer and regularizers.

    Attributes:
        epoch: whole epochs done.
        step: steps done in all.
        in_epoch: of these, steps of the epoch under way.
        seconds: spent in steps.
        busy_seconds: spent in steps and measurements.
        precision: fp32 or bf16; None where it was not recorded.
        model, optimizer, regularizers: tensors by name.
        loss_sum: of the epoch under way.
        threads: numbers of CPU threads that steps were done with; empty on a GPU, or where they were not recorded.
        ways: what computed the steps, "autograd" or "kernels"; of an older version's steps nothing.
    """

    epoch: int
    step: int
    seconds: float
    in_epoch: int = 0
    busy_seconds: float = 0.0
    precision: str | None = None
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    regularizers: dict[str, Tensor] = field(default_factory=dict)
    loss_sum: Tensor | None = None
    threads: list[int] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the resume point's folder; `_age` derives the order from it."""
        return f"epoch-{self.epoch:06d}" + (f"-step-{self.in_epoch:06d}" if self.in_epoch else "")

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU, under names with the prefix of their part (`model/`, `optimizer/`, `regularizers/`)."""
        parts = (("model", self.model), ("optimizer", self.optimizer), ("regularizers", self.regularizers))
        found = {f"{part}/{name}": t for part, tensors in parts for name, t in tensors.items()}
        found |= {} if self.loss_sum is None else {"loss_sum": self.loss_sum}
        return {name: t.detach().cpu().contiguous() for name, t in found.items()}


def save_state(directory: Path, state: TrainingState, *, keep: Collection[int] = (), shard_bytes: int | None = SHARD_BYTES) -> None:
    """Write a resume point, then drop all but the newest two and those of the epochs `keep`.

    A run has one writing process, so half-written points in its folder are those of a killed one, and are deleted.

    Raises:
        UserError: the disk is full; older points are as they were.
    """
    remove_leftovers(directory)
    with new_directory(directory / state.name) as temporary:
        counters = {name: getattr(state, name) for name in COUNTED}
        shards = _write_shards(temporary, save(state.tensors()), shard_bytes)
        noted = {**counters, "shards": shards}
        write_json(temporary / COUNTERS, {**noted, "hash": content_id(noted, 32)})
    _prune(directory, state.name, keep)


def load_state(directory: Path, epoch: int | None = None) -> TrainingState | None:
    """The newest whole resume point, or the one after `epoch`; None if there is none.

    Only reads, since the run may be under way in another process.
    """
    for point in _points(directory) if epoch is None else [directory / f"epoch-{epoch:06d}"]:
        if not point.is_dir():
            continue
        try:
            return _read(point)
        except (UserError, OSError) as error:
            warnings.warn(f"passing over a damaged resume point: {error}", stacklevel=2)
    return None


def next_step(directory: Path) -> int:
    """First step that the next start repeats: the one after the newest whole resume point."""
    state = load_state(directory)
    return state.step + 1 if state else 0


def restore(state: TrainingState, model: nn.Module, optimizer: Optimizer, regularizers: nn.Module | None = None) -> None:
    """Load a resume point into a model, its optimizer and its regularizers."""
    model.load_state_dict(state.model)
    if regularizers is not None:
        regularizers.load_state_dict(state.regularizers)
    load_optimizer_tensors(optimizer, state.optimizer)


def _points(directory: Path) -> list[Path]:
    """Folders of resume points, the newest first."""
    return sorted((path for path in directory.glob("epoch-*") if NAME.fullmatch(path.name)), key=lambda path: _age(path.name), reverse=True)


def _age(name: str) -> tuple[int, int]:
    """Epochs and steps of a resume point's name, as numbers: from a million on names have more digits."""
    found = NAME.fullmatch(name)
    assert found is not None
    return int(found[1]), int(found[2] or 0)


def _prune(directory: Path, name: str, keep: Collection[int]) -> None:
    """Leave the point `name`, the one before, and older ones of the epochs `keep`. Newer ones were passed over as damaged."""
    before = [point for point in _points(directory) if _age(point.name) < _age(name)]
    whole = {(epoch, 0) for epoch in keep}
    kept = [point for point in before[NEWEST - 1 :] if _age(point.name) in whole]
    stay = {directory / name, *before[: NEWEST - 1], *kept}
    for point in _points(directory):
        if point not in stay:
            shutil.rmtree(point)


def _write_shards(directory: Path, data: bytes, shard_bytes: int | None) -> dict[str, str]:
    """Write the bytes in one or more files; the hash of each by its name, in order."""
    size = shard_bytes or len(data)
    pieces = [memoryview(data)[start : start + size] for start in range(0, len(data), size)]
    names = [TENSORS] if len(pieces) == 1 else [f"{TENSORS}.{i:05d}-of-{len(pieces):05d}" for i in range(1, len(pieces) + 1)]
    for name, piece in zip(names, pieces, strict=True):
        write_bytes(directory / name, piece)
    return {name: hashlib.sha256(piece).hexdigest() for name, piece in zip(names, pieces, strict=True)}


def _read(point: Path) -> TrainingState:
    counters = _read_counters(point / COUNTERS)
    data = bytearray()
    for name, digest in counters.pop("shards").items():
        path = point / name
        piece = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(piece).hexdigest() != digest:
            raise UserError(f"expected {path} as its hash says, found it missing or changed")
        data += piece
    try:
        tensors = load(bytes(data))
    except SafetensorError as error:
        raise UserError(f"expected tensors in {point}, got something else ({error})") from None
    model, optimizer, regularizers = (_under(f"{part}/", tensors) for part in ("model", "optimizer", "regularizers"))
    return TrainingState(**counters, model=model, optimizer=optimizer, regularizers=regularizers, loss_sum=tensors.get("loss_sum"))


def _read_counters(path: Path) -> Any:
    counters = read_object(path, "resume point")
    if counters.pop("hash", None) != content_id(counters, 32):
        raise UserError(f"expected {path} as its hash says, found it changed")
    return counters


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
