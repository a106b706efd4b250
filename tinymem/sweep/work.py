"""What engines hand to workers: runs of one model that one scoring pass serves. Plain data, light to import: no torch here."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]


@dataclass(slots=True)
class PlannedRun:
    """A run.

    Attributes:
        id: content id.
        config: all options of the method.
        options: those that say something (`evaluator.chosen`).
        replaces: `finished` of the rows that it shall replace: a failed attempt, or one that did not measure all that is asked.
    """

    id: str
    config: Row
    options: Row
    replaces: str | None = None


@dataclass(slots=True)
class WorkUnit:
    """Runs of one model, seed and method that one scoring pass serves.

    Attributes:
        name: content id of the pass, the same for any part of the group.
        model: checkpoint, identity (columns of its rows), artifacts, which rows to forget, and what to measure.
        seed: of the mitigation.
        attempt: counts from 1 how often it was given to a worker that died.
    """

    name: str
    model: Row
    seed: int
    method: str
    runs: list[PlannedRun]
    attempt: int = 1

    def as_dict(self) -> Row:
        """For a worker elsewhere."""
        return asdict(self)

    @staticmethod
    def of(values: Row) -> WorkUnit:
        """The group that `as_dict` wrote."""
        return WorkUnit(**{**values, "runs": [PlannedRun(**run) for run in values["runs"]]})

    @property
    def model_key(self) -> tuple[str, int]:
        """What a worker must have loaded."""
        return str(self.model["checkpoint"]), self.seed


def bare_rows(group: WorkUnit, run: PlannedRun, status: str, message: str) -> list[Row]:
    """Rows of a run that nothing was measured of: one for each artifact of the model's recipe."""
    identity = {"id": run.id, **group.model["identity"], "seed": group.seed, "method": group.method}
    shared = {**identity, "options": run.options, "config": run.config, "status": status, "message": message}
    return [{**shared, "artifact": artifact} for artifact in group.model["artifacts"] or ["none"]]


def stamped(rows: list[Row], group: WorkUnit, traceback: str | None = None) -> list[Row]:
    """Rows with when, where and at which attempt they were made, and the traceback of a failure."""
    stamp: Row = {"finished": datetime.now(UTC).isoformat(), "host": socket.gethostname(), "attempts": group.attempt}
    return [{**row, **stamp, **({"traceback": traceback} if traceback else {})} for row in rows]
