"""Estimate of the GPU-hours of a recipe's runs, from measured milliseconds a step (`tinymem bench train --json`).

    hours = steps an epoch * epochs * milliseconds a step / 3.6e6

Measurements on the way (some seconds each) and the start of a run are not included. Times of depths that were not measured come from a
line through those that were; a regularizer counts with its measured overhead, from whichever size that was measured on, and one without
a measurement is named as not timed. A recipe with a counterfactual trains two models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tinymem.bench import sizes
from tinymem.bench.sizes import BATCH
from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe, load_matrix
from tinymem.recipe.sizes import GPT2_VOCABULARY, MATH_VOCABULARY, epoch_rows, planned_vocabulary
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
    untimed: str = ""
    """Regularizers whose overhead was not measured, and is left out."""

    @property
    def hours(self) -> float:
        """GPU-hours of all runs of the line."""
        return self.runs * self.steps_per_epoch * self.epochs * self.milliseconds / 3.6e6


class BenchLine(TypedDict):
    """The keys that are used of a JSON line of `tinymem bench train`."""

    way: str
    case: str
    milliseconds: float
    rows: int


@dataclass(frozen=True)
class Times:
    """Measured milliseconds a step.

    Attributes:
        plain: by corpus (math, language) and layers.
        overhead: factor of each regularizer.
        rows: of a batch.
    """

    plain: dict[tuple[str, int], float]
    overhead: dict[str, float]
    rows: int = BATCH

    @staticmethod
    def of(lines: Iterable[BenchLine], way: str = "ours") -> Times:
        """Times from the JSON lines of `bench train`, of one way and its regularizers.

        Raises:
            UserError: batches of several sizes, or of one that an older version did not write.
            ValueError: a time that is none.
        """
        lines = [line for line in lines if line["way"].partition("+")[0] == way]
        if any("rows" not in line and "milliseconds" in line for line in lines):
            raise UserError("expected times with the `rows` of a batch, got an older version's; time again: tinymem bench train --json")
        if len(batches := {int(line["rows"]) for line in lines}) > 1:
            raise UserError(f"expected times of batches of one size, got {', '.join(map(str, sorted(batches)))} rows; leave some lines out")
        plain: dict[tuple[str, int, str], float] = {}
        with_regularizer: dict[tuple[str, int, str], float] = {}
        for line in lines:
            regularizer, (kind, _, layers) = line["way"].partition("+")[2], line["case"].rpartition("-")
            if not 0 < (milliseconds := float(line["milliseconds"])) < math.inf:
                raise ValueError(f"{milliseconds} milliseconds")
            (with_regularizer if regularizer else plain)[kind, int(layers), regularizer] = milliseconds
        overhead = {r: ms / plain[kind, layers, ""] for (kind, layers, r), ms in with_regularizer.items() if (kind, layers, "") in plain}
        return Times({(kind, layers): ms for (kind, layers, _), ms in plain.items()}, overhead, *batches)

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
        if (fitted := _on_line(known, layers)) <= 0:
            raise UserError(
                f"expected times of {kind} on a line above 0 at {layers} layers, got {fitted:g}; measure --case {kind}-{layers}"
            )
        return fitted, True


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
    except OSError as error:
        raise UserError(f"expected the times of `tinymem bench train --json` at {path}, got: {error.strerror or error}") from None
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise UserError(f"expected JSON lines of `tinymem bench train --json` in {path}, got something else") from None
    if not times.plain:
        raise UserError(f"expected lines with the way '{way}' in {path}, found none; try --way graph")
    return times


def project(recipes: list[Path], times: Times) -> list[Line]:
    """The lines of the table, in the order of the recipes.

    Raises:
        UserError: a recipe of other sizes than those that were timed; otherwise as `steps_per_epoch` and `Times.milliseconds`.
    """
    lines: dict[tuple[Any, ...], int] = {}
    for path in recipes:
        for recipe in load_matrix(path):
            _refuse_other_sizes(recipe, times)
            regularizer = "+".join(r.kind for r in recipe.training.regularizers)
            key = (path.stem, regularizer, recipe.model.n_layer, steps_per_epoch(recipe), recipe.training.epochs, _kind(recipe))
            lines[key] = lines.get(key, 0) + (2 if recipe.counterfactual else 1)
    found = []
    for (name, regularizer, layers, steps, epochs, kind), runs in lines.items():
        milliseconds, fitted = times.milliseconds(kind, layers)
        parts = regularizer.split("+") if regularizer else []
        factor, untimed = math.prod(times.overhead.get(part, 1.0) for part in parts), [part for part in parts if part not in times.overhead]
        found.append(Line(name, regularizer, layers, steps, epochs, factor * milliseconds, fitted, runs, ", ".join(untimed)))
    return found


def _refuse_other_sizes(recipe: Recipe, times: Times) -> None:
    """Raise UserError unless a recipe's steps are of the width, rows and vocabulary that `bench train` times."""
    vocabulary = MATH_VOCABULARY if recipe.data.kind == "math" else GPT2_VOCABULARY
    timed = {"d": sizes.WIDTH, "heads": sizes.HEADS, "tokens a row": sizes.TOKENS, "vocabulary": vocabulary, "rows a batch": times.rows}
    own = (recipe.model.n_embd, recipe.model.n_head, recipe.data.row_tokens, planned_vocabulary(recipe))
    for (name, expected), got in zip(timed.items(), (*own, recipe.training.batch_size), strict=True):
        if got != expected:
            try_ = f"measure with --batch {got}" if name == "rows a batch" else "--dry-run of `tinymem train` estimates any size"
            raise UserError(f"expected a model of the sizes that were timed ({expected} {name}), got {got} {name} in {recipe.name}; {try_}")


def steps_per_epoch(recipe: Recipe) -> int:
    """Steps of an epoch; for a math corpus with backdoors slightly too many, since some triggered rows are held out of training.

    Raises:
        UserError: a text corpus other than the paper's, or copies of rows with a trigger: how many there are is known once it is made.
    """
    data = recipe.data
    if data.kind == "math":
        known = [artifact for artifact in recipe.artifacts if hasattr(artifact, "rows")]
        if copied := [one.kind for one in recipe.artifacts if one not in known and getattr(one, "copies", 1) != 1]:
            raise UserError(f"expected {copied[0]} of 1 copy in {recipe.name}: how many rows it has is not known beforehand")
        rows = epoch_rows(recipe.model_copy(update={"artifacts": known}))
        return math.ceil(rows / recipe.training.batch_size)
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
        for source, each in [(_source(n), round(n.hours / n.runs, 2))]
    ]


def _source(line: Line) -> str:
    """Where a line's milliseconds are from."""
    return ("a fitted line" if line.fitted else "measured") + (f", {line.untimed} not timed" if line.untimed else "")


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
