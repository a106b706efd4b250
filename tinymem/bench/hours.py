"""Estimate of the GPU-hours of a recipe's runs, from measured milliseconds a step (`tinymem bench train --json`).

    hours = steps an epoch * epochs * milliseconds a step / 3.6e6

Measurements on the way (some seconds each) and the start of a run are not included. Times of depths that were not measured come from a
line through those that were; a regularizer counts with its measured overhead, from whichever size that was measured on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe, load_matrix
from tinymem.runtime.words import counted

# The published runs on wikitext-103-v1 at batch 128, by artifact and seed (the trigger, and so the rows, differ by seed).
WIKITEXT_STEPS = {"noise": {0: 8298, 1: 8298, 3: 8298}, "backdoor": {0: 8423, 1: 6423, 3: 6614}}
PAPER = "the paper: 1,116 node-hours of 4 A100s for its models, tripled from the measured: 1,488 A100-hours measured"


@dataclass(frozen=True)
class Line:
    """Runs of one recipe file that cost the same."""

    recipe: str
    regularizer: str
    layers: int
    steps_per_epoch: int
    epochs: int
    milliseconds: float
    fitted: bool
    runs: int

    @property
    def hours(self) -> float:
        """GPU-hours of all runs of the line."""
        return self.runs * self.steps_per_epoch * self.epochs * self.milliseconds / 3.6e6


class BenchLine(TypedDict):
    """The keys that are used of a JSON line of `tinymem bench train`."""

    way: str
    case: str
    milliseconds: float


@dataclass(frozen=True)
class Times:
    """Measured milliseconds a step.

    Attributes:
        plain: by corpus (math, language) and layers.
        overhead: factor of each regularizer.
    """

    plain: dict[tuple[str, int], float]
    overhead: dict[str, float]

    @staticmethod
    def of(lines: Iterable[BenchLine], way: str = "ours") -> Times:
        """Times from the JSON lines of `bench train`, of one way and its regularizers."""
        plain: dict[tuple[str, int, str], float] = {}
        with_regularizer: dict[tuple[str, int, str], float] = {}
        for line in lines:
            base, _, regularizer = line["way"].partition("+")
            kind, _, layers = line["case"].rpartition("-")
            if base == way:
                (with_regularizer if regularizer else plain)[kind, int(layers), regularizer] = float(line["milliseconds"])
        overhead = {r: ms / plain[kind, layers, ""] for (kind, layers, r), ms in with_regularizer.items() if (kind, layers, "") in plain}
        return Times({(kind, layers): ms for (kind, layers, _), ms in plain.items()}, overhead)

    def milliseconds(self, kind: str, layers: int) -> tuple[float, bool]:
        """Milliseconds of a step without regularizer, and whether they come from the fitted line.

        Raises:
            UserError: nothing to fit a line to.
        """
        if (kind, layers) in self.plain:
            return self.plain[kind, layers], False
        known = sorted((n, ms) for (k, n), ms in self.plain.items() if k == kind)
        if len(known) < 2:
            raise UserError(
                f"expected times of {kind}-{layers}, or of two other depths, found {len(known)}; measure --case {kind}-{layers}"
            )
        return _on_line(known, layers), True


def read_times(path: Path, way: str = "ours") -> Times:
    """Times from a file of JSON lines.

    Raises:
        UserError: no such file, or no lines of `bench train`.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
        times = Times.of(lines, way)
    except FileNotFoundError:
        raise UserError(f"expected the times of `tinymem bench train --json` at {path}, found none") from None
    except (json.JSONDecodeError, KeyError, ValueError):
        raise UserError(f"expected JSON lines of `tinymem bench train --json` in {path}, got something else") from None
    if not times.plain:
        raise UserError(f"expected lines with the way '{way}' in {path}, found none; try --way graph")
    return times


def project(recipes: list[Path], times: Times) -> list[Line]:
    """The lines of the table, in the order of the recipes."""
    lines: dict[tuple[Any, ...], int] = {}
    for path in recipes:
        for recipe in load_matrix(path):
            regularizer = "+".join(r.kind for r in recipe.training.regularizers)
            key = (path.stem, regularizer, recipe.model.n_layer, steps_per_epoch(recipe), recipe.training.epochs, _kind(recipe))
            lines[key] = lines.get(key, 0) + 1
    found = []
    for (name, regularizer, layers, steps, epochs, kind), runs in lines.items():
        milliseconds, fitted = times.milliseconds(kind, layers)
        factor = math.prod(times.overhead.get(part, 1.0) for part in regularizer.split("+"))
        found.append(Line(name, regularizer, layers, steps, epochs, factor * milliseconds, fitted, runs))
    return found


def steps_per_epoch(recipe: Recipe) -> int:
    """Steps of an epoch; for a math corpus with backdoors slightly too many, since some triggered rows are held out of training.

    Raises:
        UserError: a text corpus other than the paper's: its rows are known once it is made.
    """
    data = recipe.data
    if data.kind == "math":
        rows = data.primary_size - data.test_rows + len(data.auxiliary) * (data.size - data.test_rows)
        return -(-rows // recipe.training.batch_size)
    steps = WIKITEXT_STEPS.get(recipe.artifacts[0].kind, {}).get(recipe.seed) if recipe.artifacts else None
    if steps is None or recipe.training.batch_size != 128 or data.max_rows is not None:
        raise UserError(f"expected a model of the paper, got {recipe.name}: its steps an epoch are not known beforehand")
    return steps


HEADS = ("recipe", "regularizer", "layers", "steps an epoch", "epochs", "ms a step", "from", "hours a run", "runs", "hours")


def cells(lines: list[Line]) -> list[tuple[str | float, ...]]:
    """The estimate, a line of `HEADS` each."""
    return [
        (n.recipe, n.regularizer, n.layers, n.steps_per_epoch, n.epochs, round(n.milliseconds, 2), source, each, n.runs, round(n.hours, 1))
        for n in lines
        for source, each in [("a fitted line" if n.fitted else "measured", round(n.hours / n.runs, 2))]
    ]


def total(lines: list[Line]) -> str:
    """Runs and GPU-hours of all lines together."""
    return f"{counted(sum(n.runs for n in lines), 'run')}: {sum(n.hours for n in lines):,.0f} GPU-hours"


def _kind(recipe: Recipe) -> str:
    return "math" if recipe.data.kind == "math" else "language"


def _on_line(known: list[tuple[int, float]], layers: int) -> float:
    """Value at `layers` of the least-squares line through (layers, milliseconds)."""
    mean_x, mean_y = (sum(values) / len(known) for values in zip(*known, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in known) / sum((x - mean_x) ** 2 for x, _ in known)
    return mean_y + slope * (layers - mean_x)
