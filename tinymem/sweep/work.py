"""Work units, which engines send to workers: runs of one model that share a scoring pass. Plain data, without torch."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypedDict

from tinymem.models.weights import DTypeName
from tinymem.results.nested import RequestColumn
from tinymem.results.row import Identity, MitigationRow, Status
from tinymem.runtime.json import JsonObject

ModelKey = tuple[str, int, str]


class Measuring(TypedDict):
    """Measurements of a sweep that override those of a model's recipe; None where the recipe decides."""

    metrics: list[str] | None
    ks: list[int] | None
    robustness: JsonObject | None


class FileRows(TypedDict):
    """Rows from files of a model by name.

    Keys: files: the recipe's section `rows`, with absolute paths; id: content id of the rows and of which of them methods are given;
    dtype: type of the weights in memory, or auto; gpus: that the model is spread over.
    """

    files: JsonObject
    id: str
    dtype: DTypeName
    gpus: int


class Event(TypedDict, total=False):
    """Message of a worker to its supervisor; see `task`."""

    event: Literal["begin", "run", "busy", "done", "unwritable"]
    id: str
    runs: list[str]
    spent: float
    status: Status
    message: str
    seconds: float
    found: bool


@dataclass(slots=True)
class PlannedRun:
    """One run of a sweep: a method's configuration on one model.

    Attributes:
        id: content id.
        config: all options of the method.
        options: the ratio and all options that differ from their defaults (`mitigation.run.chosen`).
        replaces: `finished` of the rows that it replaces: a failed attempt, or one that lacks requested measurements.
        files: content of the files that options name, as the id has it (`MethodConfig.files_content`).
    """

    id: str
    config: JsonObject
    options: JsonObject
    replaces: str | None = None
    files: dict[str, list[str | None]] = field(default_factory=dict)


@dataclass(slots=True)
class ModelTask:
    """A model of a sweep, and the part of the work that is the same for all methods.

    Attributes:
        checkpoint: its folder.
        forget, forget_fraction: the choice of the rows that the methods are given.
        measuring: the sweep's own measurements.
        request: the measurements that every row is to hold, from the recipe and `measuring`.
        identity: columns of its rows.
        artifacts: kinds in its corpus; of rows from files `rows`.
        rows: of a model by name; None: the checkpoint's own corpus.
    """

    checkpoint: str
    forget: str | None
    forget_fraction: float
    measuring: Measuring
    request: RequestColumn
    identity: Identity
    artifacts: list[str]
    rows: FileRows | None = None


@dataclass(frozen=True, slots=True)
class Rung:
    """A cheap form of a method's runs, to choose among them: fewer rows to train on, and fewer test rows to measure performance.

    Attributes:
        number: of the rung, from 0.
        retain: share of the retain rows that the method is given, in (0, 1].
        forget: most forget rows that it is given; None: all.
        tests: share of the test rows that are measured. Artifact rows are all scored.
    """

    number: int
    retain: float
    forget: int | None
    tests: float = 0.2


@dataclass(slots=True)
class WorkUnit:
    """A work unit: runs of one model, seed and method that share a scoring pass.

    Attributes:
        name: content id of the pass, the same for any part of the group.
        model: the model, with the choice of forget rows and measurements.
        seed: of the mitigation.
        attempt: number of this attempt, from 1; each worker that dies with the unit adds one.
        rung: of a search, the cheap form of the runs; None: the runs themselves.
    """

    name: str
    model: ModelTask
    seed: int
    method: str
    runs: list[PlannedRun]
    attempt: int = 1
    rung: Rung | None = None

    def to_json(self) -> str:
        """The unit as JSON, to be sent to a worker."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_json(text: str | bytes) -> WorkUnit:
        """The unit from the JSON that `to_json` wrote."""
        values = json.loads(text)
        model = {**values["model"], "identity": Identity(**values["model"]["identity"])}
        parts = {"model": ModelTask(**model), "runs": [PlannedRun(**run) for run in values["runs"]]}
        return WorkUnit(**{**values, **parts, "rung": Rung(**values["rung"]) if values["rung"] else None})

    @property
    def model_key(self) -> ModelKey:
        """Checkpoint, seed and type of weights: units with equal keys can share a loaded model."""
        return self.model.checkpoint, self.seed, self.model.identity.dtype or ""


def bare_rows(group: WorkUnit, run: PlannedRun, status: Status, message: str) -> list[MitigationRow]:
    """Rows of a run without a measurement, such as a failed one: one for each artifact of the model's recipe."""
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
    """Rows with the time, host and attempt at which they were made, and the traceback of a failure."""
    finished, host = datetime.now(UTC).isoformat(), socket.gethostname()
    return [replace(row, finished=finished, host=host, attempts=group.attempt, traceback=traceback) for row in rows]
