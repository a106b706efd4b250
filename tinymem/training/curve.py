"""The curve of a run: one line of metrics for each measured epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymem.errors import UserError
from tinymem.runtime.files import write_text

if TYPE_CHECKING:
    from tinymem.evaluation.evaluator import Evaluator, Measurement


def point(evaluator: Evaluator, measured: Measurement, epoch: int, step: int, loss: float, seconds: float, speed: float) -> dict[str, Any]:
    """The line of one epoch."""
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": None if loss != loss else loss,
        "accuracy": measured.accuracy.share,
        "accuracy_ceiling": evaluator.ceiling.share if evaluator.ceiling else None,
        "accuracy_by_task": {name: share.share for name, share in measured.accuracy_by_task.items()},
        "perplexity": measured.perplexity,
        "memorized": {kind: measured.memorized_share(kind).as_dict() for kind in measured.memorized},
        **_by_copies(evaluator, measured),
        "seconds": seconds,
        "tokens_per_second": speed,
    }


def _by_copies(evaluator: Evaluator, measured: Measurement) -> dict[str, Any]:
    """The memorized shares of artifacts with several duplication classes."""
    classes = {kind: evaluator.by_copies(measured, kind) for kind in measured.memorized}
    shares = {kind: {c: share.as_dict() for c, share in found.items()} for kind, found in classes.items() if found}
    return {"memorized_by_copies": shares} if shares else {}


def note(point: dict[str, Any]) -> str:
    """What stands beside the progress bar: the newest measurement, and the epoch that it is of."""
    math = point["accuracy_ceiling"] is not None
    perplexity = "too large" if point["perplexity"] is None else f"{point['perplexity']:.1f}"
    parts = [f"accuracy {100 * point['accuracy']:.1f} %" if math else f"perplexity {perplexity}"]
    parts += [f"{m['count']} of {m['rows']} {kind} rows memorized" for kind, m in point["memorized"].items()]
    return f"at epoch {point['epoch']}: {', '.join(parts)}"


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The lines written so far.

    Raises:
        UserError: one of them is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise UserError(f"expected JSON lines in {path}, got something else ({error}); delete the damaged line") from None


def write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    """Write all lines atomically."""
    write_text(path, "".join(json.dumps(point) + "\n" for point in curve))
