"""The regularizers by their `kind` in recipes."""

from __future__ import annotations

from typing import Any

from tinymem.errors import UserError
from tinymem.training.regularizers.base import Regularizer, Regularizers
from tinymem.training.regularizers.example_tied_dropout import ExampleTiedDropout
from tinymem.training.regularizers.goldfish import Goldfish
from tinymem.training.regularizers.loss_truncation import LossTruncation
from tinymem.training.regularizers.mem_sinks import MemSinks
from tinymem.training.regularizers.spectral_norm import SpectralNorm

CATALOGUE: dict[str, type[Regularizer]] = {
    "spectral-norm": SpectralNorm,
    "loss-truncation": LossTruncation,
    "example-tied-dropout": ExampleTiedDropout,
    "mem-sinks": MemSinks,
    "goldfish": Goldfish,
}


def make_regularizers(options: list[dict[str, Any]], *, clean_rows: int = 0, rows: int | None = None) -> Regularizers:
    """Regularizers from a recipe's sections; `clean_rows` of the distinct training rows come before the planted ones.

    Raises:
        UserError: ids of rows that are not among the `rows`.
    """
    parts = []
    for section in options:
        kind, given = section["kind"], {name: value for name, value in section.items() if name != "kind"}
        named = [*given.get("ids", ()), *given.get("excluded", ())]
        if rows is not None and named and max(named) >= rows:
            raise UserError(f"expected ids and excluded of {kind} below the number of distinct training rows, {rows}, got {max(named)}")
        if kind == "mem-sinks":
            given["clean_rows"] = clean_rows
        parts.append((kind, CATALOGUE[kind](**given)))
    return Regularizers(parts)
