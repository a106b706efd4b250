"""A point of a run's curve: the measurement of a model in training."""

from __future__ import annotations

from tinymem.evaluation.evaluator import Evaluator, Measurement
from tinymem.results.curve import CurvePoint
from tinymem.results.share import ShareColumn


def point(
    evaluator: Evaluator, measured: Measurement, epoch: int, step: int, loss: float, seconds: float, speed: float, part: float
) -> CurvePoint:
    """The point of one measurement.

    Args:
        evaluator: the evaluator that measured the model.
        measured: its measurement.
        epoch: epochs done.
        step: steps done.
        loss: mean training loss of the epoch, in nats; NaN where there was none.
        seconds: spent in steps so far.
        speed: tokens per second of the epoch.
        part: of the epoch under way that is done.
    """
    return CurvePoint(
        epoch=epoch,
        part=part,
        step=step,
        train_loss=None if loss != loss else loss,
        accuracy=measured.accuracy.share,
        accuracy_ceiling=evaluator.ceiling.share if evaluator.ceiling else None,
        accuracy_by_task={name: share.share for name, share in measured.accuracy_by_task.items()},
        perplexity=measured.perplexity,
        memorized={kind: measured.memorized_share(kind).as_dict() for kind in measured.memorized},
        memorized_by_copies=_by_copies(evaluator, measured),
        seconds=seconds,
        tokens_per_second=speed,
    )


def _by_copies(evaluator: Evaluator, measured: Measurement) -> dict[str, dict[str, ShareColumn]]:
    """The memorized shares of artifacts with several duplication classes."""
    classes = {kind: evaluator.by_copies(measured, kind) for kind in measured.memorized}
    return {kind: {c: share.as_dict() for c, share in found.items()} for kind, found in classes.items() if found}
