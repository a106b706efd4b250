"""The curve of a run: one line of JSON for each measurement."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.results.share import ShareColumn
from tinymem.runtime.files import json_lines, write_text
from tinymem.runtime.json import JsonObject
from tinymem.runtime.words import counted

SPARSE = ("part", "memorized_by_copies")
"""Values that are written only where there are any."""
AGAIN = "delete the line and run its step again"


@dataclass(frozen=True)
class CurvePoint:
    """The measurement of a model in its training."""

    epoch: int
    """Whole epochs done."""
    step: int = 0
    """Number of training steps done."""
    train_loss: float | None = None
    """Mean loss of the steps of the epoch so far, in nats a token; None of the untrained model."""
    accuracy: float | None = None
    accuracy_ceiling: float | None = None
    """Share of the scored tokens that their prefix determines; None for text."""
    accuracy_by_task: dict[str, float | None] = field(default_factory=dict)
    perplexity: float | None = None
    memorized: dict[str, ShareColumn] = field(default_factory=dict)
    """Memorized share, count and scored rows, by artifact."""
    memorized_by_copies: dict[str, dict[str, ShareColumn]] = field(default_factory=dict)
    """Memorized share, count and scored rows, by artifact and number of copies in an epoch, where that differs; not written where empty."""
    seconds: float | None = None
    """Seconds spent in steps so far, over all starts of the run."""
    tokens_per_second: float | None = None
    part: float = 0.0
    """Share of the epoch under way that is done, 0 at an epoch's end; not written where 0."""

    def as_dict(self) -> JsonObject:
        """The point as one line of the file."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in SPARSE or getattr(self, f.name)}

    @property
    def at(self) -> float:
        """Epochs done, with the part of the one under way."""
        return self.epoch + self.part

    @property
    def note(self) -> str:
        """Text next to the progress bar: the measurement and its epoch."""
        perplexity = "too large" if self.perplexity is None else f"{self.perplexity:.1f}"
        math = self.accuracy_ceiling is not None
        parts = [f"accuracy {100 * (self.accuracy or 0.0):.1f} %" if math else f"perplexity {perplexity}"]
        parts += [f"{m['count']} of {counted(m['rows'], f'{kind} row')} memorized" for kind, m in self.memorized.items()]
        return f"at epoch {self.at:g}: {', '.join(parts)}"


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve file, in order; none where there is no file.

    Raises:
        UserError: a line is damaged.
    """
    if not path.is_file():
        return []
    return [_read_point(path, number, values) for number, values in json_lines(path, AGAIN)]


def write_curve(path: Path, curve: list[CurvePoint]) -> None:
    """Write all points of a curve atomically."""
    write_text(path, "".join(json.dumps(point.as_dict()) + "\n" for point in curve))


def _read_point(path: Path, number: int, values: Any) -> CurvePoint:
    if not isinstance(values, dict):
        raise _broken(path, number, f"{type(values).__name__}")
    if not isinstance(values.get("epoch"), int):
        raise _broken(path, number, "one without epoch")
    known = {f.name for f in fields(CurvePoint)}
    return CurvePoint(**{name: value for name, value in values.items() if name in known and value is not None})


def _broken(path: Path, number: int, got: str) -> UserError:
    return UserError(f"expected a JSON object in line {number} of {path}, got {got}; {AGAIN}")
