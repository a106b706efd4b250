"""Columns of result rows that hold JSON objects of a known shape."""

from __future__ import annotations

from typing import TypedDict

from tinymem.runtime.json import JsonObject


class RequestColumn(TypedDict):
    """The measurements requested for a row, which decide whether a stored row satisfies a later request."""

    metrics: list[str]
    ks: list[int]
    robustness: JsonObject | None


class LayersColumn(TypedDict):
    """Numbers of neurons and weights that an edit zeroed or changed in each block, bottom to top: lists of one number a block."""

    neurons: list[int]
    """Zeroed neurons, out of `of_neurons`."""
    of_neurons: list[int]
    weights: list[int]
    """Zeroed feed-forward weights, out of `of_weights`."""
    of_weights: list[int]
    changed: list[int]
    """Parameters changed anywhere in the block."""
    elsewhere: int
    """Parameters changed outside all blocks."""


class ConfusionColumn(TypedDict):
    """DEL: change of the accuracy of each memorized row when the neurons of each target are dropped."""

    targets: list[str]
    """Category of each line's target; above 128 rows the categories themselves."""
    rows: list[str]
    """Category of each column's row."""
    changes: list[list[float | None]]
    """A list a line; null where a category has no other row."""
    categories: str
    """Content id of the categories of all rows, in the order of the rows."""


class BeforeAfter(TypedDict):
    """One test of the unedited model and of the edited one."""

    before: JsonObject
    after: JsonObject
