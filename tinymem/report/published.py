"""The paper's tables as typed data, each number with its table and its known errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, NotRequired, TypedDict

import yaml

from tinymem.results.columns import PUBLISHED_COLUMNS

ColumnValue = str | int
"""Value of a column that a published model is known by."""
Line = tuple[float, float | None, float | None, *tuple[str, ...]]
"""A row of the file: percent memorized, performance, seconds, names of footnotes."""


class Model(TypedDict):
    """Common fields of the entries of `published.yaml`."""

    data: NotRequired[str]
    data_size: NotRequired[int]
    n_layer: NotRequired[int]
    model_name: NotRequired[str]
    artifact: NotRequired[str]
    metric: Literal["accuracy", "perplexity"]
    notes: list[str]


class TableModel(Model):
    """A model of a table, with the notes of all its unlearners, and a line for each method."""

    table: str
    epoch: NotRequired[int]
    unlearning: NotRequired[list[str]]
    rows: dict[str, Line]


class CurveModel(Model):
    """A model's training curve: epoch, percent memorized, performance and seeds of each point."""

    points: list[tuple[int, float, float | None, int]]


class File(TypedDict):
    """The contents of `published.yaml`: models, their tables and curves, and footnotes."""

    footnotes: dict[str, str]
    models: list[TableModel]
    curves: list[CurveModel]


@dataclass(frozen=True)
class PublishedRow:
    """One line of a table.

    Attributes:
        memorized: percent.
        performance: accuracy in percent, or perplexity; None where only memorization is known.
        seconds: of the method, or those that a regularizer adds to training.
        notes: names of footnotes.
    """

    memorized: float
    performance: float | None
    seconds: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Numbers published of one kind of model.

    Attributes:
        origin: `Table 1`, or `training curve, mean of 2 seeds`.
        columns: data, data_size, n_layer, artifact (or model_name, artifact), in which our rows must agree.
        epoch: of the models; None where the paper does not train them.
        metric: name of the performance metric.
        rows: by our name of the method; `none` is the trained model.
        notes: names of footnotes that concern all rows.
    """

    origin: str
    columns: tuple[tuple[str, ColumnValue], ...]
    epoch: int | None
    metric: Literal["accuracy", "perplexity"]
    rows: dict[str, PublishedRow]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> ColumnValue | None:
        """The value of a column by name; None if the publication does not give it."""
        return dict(self.columns).get(name)


TRAINED_OR_TUNED = ("none", "spectral-norm", "loss-truncation", "example-tied-dropout", "finetune-both", "finetune-clean", "finetune-extra")


@cache
def published() -> tuple[Published, ...]:
    """All published models: the tables first, then single points of training curves."""
    values = _values()
    return (*(_of_table(model) for model in values["models"]), *(p for curve in values["curves"] for p in _of_curve(curve)))


@cache
def footnotes() -> dict[str, str]:
    """Texts of the published footnotes, by name."""
    return dict(_values()["footnotes"])


@cache
def _values() -> File:
    text = resources.files("tinymem.report").joinpath("published.yaml").read_text(encoding="utf-8")
    values: File = yaml.safe_load(text)
    return values


def _of_table(model: TableModel) -> Published:
    unlearning = model.get("unlearning", [])
    rows = {}
    for method, (memorized, performance, seconds, *notes) in model["rows"].items():
        more = () if method in TRAINED_OR_TUNED else unlearning
        rows[method] = PublishedRow(memorized, performance, seconds, (*more, *notes))
    return Published(f"Table {model['table']}", _columns(model), model.get("epoch"), model["metric"], rows, tuple(model["notes"]))


def _of_curve(curve: CurveModel) -> Iterator[Published]:
    for epoch, memorized, performance, seeds in curve["points"]:
        origin = f"training curve, {'mean of ' if seeds > 1 else ''}{seeds} seed{'s' if seeds > 1 else ''}"
        rows = {"none": PublishedRow(memorized, performance, None)}
        yield Published(origin, _columns(curve), epoch, curve["metric"], rows, tuple(curve["notes"]))


def _columns(model: Model) -> tuple[tuple[str, ColumnValue], ...]:
    return tuple((name, value) for name in PUBLISHED_COLUMNS if isinstance(value := model.get(name), str | int))
