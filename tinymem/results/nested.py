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


class BeforeAfter(TypedDict):
    """One test of the unedited model and of the edited one."""

    before: JsonObject
    after: JsonObject
