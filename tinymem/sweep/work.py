"""What engines hand to workers: runs of one model that one scoring pass serves. Plain data, light to import: no torch here."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypedDict

from tinymem.results.row import Identity, MitigationRow, RequestColumn, Status
from tinymem.runtime.json import JsonObject


class Measuring(TypedDict):
    """What a sweep measures instead of what a model's recipe says; None where the recipe decides."""

    metrics: list[str] | None
    ks: list[int] | None
    robustness: JsonObject | None


class Event(TypedDict, total=False):
    """Message of a worker to its supervisor; see `task`."""

    event: Literal["begin", "run", "busy", "done"]
    id: str
    runs: list[str]
    spent: float
    status: Status
    message: str
    seconds: float
    found: bool


@dataclass(slots=True)
class PlannedRun:
    """A run.

    Attributes:
        id: content id.
        config: all options of the method.
        options: those that say something (`evaluator.chosen`).
        replaces: `finished` of the rows that it shall replace: a failed attempt, or one that did not measure all that was requested.
    """

    id: str
    config: JsonObject
    options: JsonObject
    replaces: str | None = None


@dataclass(slots=True)
class ModelTask:
    """A model of a sweep, and the part of the work that is the same for all methods.

    Attributes:
        checkpoint: its folder.
        forget, forget_fraction: which rows the methods are given.
        measuring: what the sweep measures.
        request: what every row is to hold, which follows from the recipe and `measuring`.
        identity: columns of its rows.
        artifacts: kinds in its corpus.
    """

    checkpoint: str
    forget: str
    forget_fraction: float
    measuring: Measuring
    request: RequestColumn
    identity: Identity
    artifacts: list[str]


@dataclass(slots=True)
class WorkUnit:
    """Runs of one model, seed and method that one scoring pass serves.

    Attributes:
        name: content id of the pass, the same for any part of the group.
        model: with which rows to forget and what to measure.
        seed: of the mitigation.
        attempt: counts from 1 how often it was given to a worker that died.
    """

    name: str
    model: ModelTask
    seed: int
    method: str
    runs: list[PlannedRun]
    attempt: int = 1

    def to_json(self) -> str:
        """Text for a worker elsewhere."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_json(text: str | bytes) -> WorkUnit:
        """The unit that `to_json` wrote."""
        values = json.loads(text)
        model = {**values["model"], "identity": Identity(**values["model"]["identity"])}
        return WorkUnit(**{**values, "model": ModelTask(**model), "runs": [PlannedRun(**run) for run in values["runs"]]})

    @property
    def model_key(self) -> tuple[str, int]:
        """What a worker must have loaded."""
        return self.model.checkpoint, self.seed


def bare_rows(group: WorkUnit, run: PlannedRun, status: Status, message: str) -> list[MitigationRow]:
    """Rows of a run that nothing was measured of: one for each artifact of the model's recipe."""
    return [
        MitigationRow(
            **vars(replace(group.model.identity, seed=group.seed)),
            id=run.id,
            method=group.method,
            options=run.options,
            config=run.config,
            status=status,
            message=message,
            artifact=artifact,
        )
        for artifact in group.model.artifacts or ["none"]
    ]


def stamped(rows: list[MitigationRow], group: WorkUnit, traceback: str | None = None) -> list[MitigationRow]:
    """Rows with when, where and at which attempt they were made, and the traceback of a failure."""
    finished, host = datetime.now(UTC).isoformat(), socket.gethostname()
    return [replace(row, finished=finished, host=host, attempts=group.attempt, traceback=traceback) for row in rows]
