"""Estimates of a sweep's hours: from measured rows, and where there are none from a table of costs and a probe of speed.

A run that was measured on a model of the same size takes the same time, and as long to measure, without the tests of robustness. Else the
nearest measured run of its method is scaled by the passes over rows (`costs`) and by the arithmetic of a row. Else the table's passes are
multiplied with the time of a forward pass, which is probed on a model with random weights. Estimates are counted by source. Runs that share
a scoring pass cost it once.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymem.errors import UserError
from tinymem.mitigation.subject import MAXIMUM_RETAIN
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import TRAIN_PASSES, epoch_rows, planned_vocabulary, row_flops
from tinymem.results.parquet import PARQUET, read_part
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RECIPE as RUN
from tinymem.results.store import RESULTS, read_rows
from tinymem.runtime.device import device_is_here
from tinymem.runtime.files import canonical_json, json_lines
from tinymem.runtime.json import JsonObject
from tinymem.sweep.costs import Size, measurement_passes, passes, size_of

if TYPE_CHECKING:
    from torch import Tensor

    from tinymem.models.gpt2 import GPT

PROBE_ROWS, PROBES = 32, 5
"""Rows of a forward pass that is timed, and passes: the fastest counts, which other work on the machine has held up least."""
ASSUMED, ASSUMED_GPU = 1e11, 1e14
"""Floating-point operations a second where nothing is measured or probed, of a CPU and of a GPU."""
Facts = tuple[str | None, int | None, int]
"""Kind of data, its size and the number of blocks; a measured run with equal facts has the same cost."""


@dataclass(frozen=True)
class Measured:
    """Seconds of a run that has been measured, with the sizes that it had; `measure` is of a plain measurement, None where not known."""

    options: str
    values: JsonObject
    facts: Facts
    n_layer: int
    tokens: int | None
    parameters: int
    forget: int
    retain: int | None
    seconds: float
    measure: float | None
    protocol: str | None = None


@dataclass
class MethodCost:
    """Seconds of one method's runs, alone and with shared scores. `exact`, `scaled` and `guessed` count runs by source of the estimate."""

    runs: int = 0
    groups: int = 0
    alone: float = 0.0
    shared: float = 0.0
    measure: float = 0.0
    sources: dict[str, int] = field(default_factory=lambda: {"exact": 0, "scaled": 0, "guessed": 0})

    @property
    def total(self) -> float:
        """Seconds of the edits, with shared scores, and of their measurement."""
        return self.shared + self.measure

    def add(self, seconds: float, measure: float, source: str) -> None:
        """Add a run that shares its scoring pass with no other."""
        self.runs, self.groups = self.runs + 1, self.groups + 1
        self.alone, self.shared, self.measure = self.alone + seconds, self.shared + seconds, self.measure + measure
        self.sources[source] += 1


Speeds = dict[tuple[str, int, float], float]
"""Seconds of a forward pass over one row by a model's options, tokens and arithmetic."""


class Estimator:
    """Estimator of the seconds that runs take on one device."""

    def __init__(self, rows: Iterable[MeasuredRow] = (), device: str = "cpu", *, probe: bool = True, speeds: Speeds | None = None) -> None:
        """Make an estimator from measured rows; without `probe` speeds are assumed, `speeds` are those that others have probed."""
        self.device, self.probe = device, probe
        self.measured: dict[str, list[Measured]] = defaultdict(list)
        self._speeds: Speeds = {} if speeds is None else speeds
        known: dict[str, tuple[str, Measured]] = {}
        for row in rows:
            if row.is_ok and row.id not in known and (measured := _measured(row)):
                known[row.id] = row.method, measured
        plain = _plain_seconds(measured for _, measured in known.values())
        for method, measured in known.values():
            of_size = plain.get(measured.facts) if measured.measure is None else measured.measure
            self.measured[method].append(replace(measured, measure=of_size))

    def run(self, method: str, options: JsonObject, recipe: Recipe | Size) -> tuple[float, float, str]:
        """Seconds of the edit alone, seconds of its measurement, and their source: exact, scaled or guessed."""
        known, facts, size = self._known(method, recipe), _facts(recipe), size_of(recipe)
        same = [m for m in known if m.facts == facts and m.options == canonical_json(options)]
        if same:
            measures = [m.measure for m in same if m.measure is not None]
            return _mean([m.seconds for m in same]), _mean(measures) if measures else self._measurement(recipe, size), "exact"
        if known:
            best = min(known, key=lambda m: _distance(m, options, size, facts, method))
            seconds, measure = _scaled(best, method, options, size)
            return seconds, self._measurement(recipe, size) if measure is None else measure, "scaled"
        return passes(method, options, size) * self._speed(recipe, size), self._measurement(recipe, size), "guessed"

    def _known(self, method: str, recipe: Recipe | Size) -> list[Measured]:
        """The method's measured runs: those under the recipe's protocol, since another gives a method other rows; else all."""
        known = self.measured.get(method, [])
        if isinstance(recipe, Size):
            return known
        return [m for m in known if m.protocol in (None, recipe.protocol)] or known

    def training(self, recipe: Recipe) -> float:
        """Seconds of a recipe's training, with its measurements on the way, by a probe of speed."""
        size, settings = size_of(recipe), recipe.training
        measurements = 1 + math.ceil(settings.epochs / settings.measured_every) + settings.measured_midway
        rows = TRAIN_PASSES * settings.epochs * epoch_rows(recipe) + measurements * measurement_passes(size)
        return rows * self._speed(recipe, size)

    def group(self, cost: MethodCost, method: str, runs: Sequence[JsonObject], recipe: Recipe | Size, *, shared: bool) -> float:
        """Add the runs of a scoring pass to a method's cost; returns their seconds."""
        each = [self.run(method, options, recipe) for options in runs]
        together = max(seconds for seconds, _, _ in each) if shared else sum(seconds for seconds, _, _ in each)
        measure = sum(measure for _, measure, _ in each)
        cost.runs, cost.groups = cost.runs + len(runs), cost.groups + 1
        cost.alone, cost.shared, cost.measure = cost.alone + sum(s for s, _, _ in each), cost.shared + together, cost.measure + measure
        for _, _, source in each:
            cost.sources[source] += 1
        return together + measure

    def _measurement(self, recipe: Recipe | Size, size: Size) -> float:
        return measurement_passes(size) * self._speed(recipe, size)

    def _speed(self, recipe: Recipe | Size, size: Size) -> float:
        """Seconds of a forward pass over one row; by arithmetic alone of a model by name, which is not loaded, or of an absent GPU."""
        if isinstance(recipe, Size) or not device_is_here(self.device):
            return size.row_flops / (ASSUMED_GPU if self.device.startswith("cuda") else ASSUMED)
        if not self.probe:
            return size.row_flops / ASSUMED
        key = (canonical_json(recipe.model.model_dump()), size.tokens, size.row_flops)
        if key not in self._speeds:
            self._speeds[key] = _probe(recipe, self.device)
        return self._speeds[key]


def measured_rows(place: Path) -> list[MeasuredRow]:
    """Rows of a sweep's or run's folder, or of a JSON, JSON-lines or Parquet file; none from a folder without any.

    Raises:
        UserError: a file that is missing or is none of these.
    """
    if place.is_dir():
        return read_rows(place) if any((place / name).is_dir() for name in (RESULTS, PARQUET)) else []
    if not place.is_file():
        raise UserError(f"expected a sweep, a run or a file of rows at {place}, found none; check the path")
    try:
        rows = _values_of(place)
    except ValueError as error:
        raise UserError(f"expected rows in {place}, got something else ({error}); name a sweep or a run") from None
    if not isinstance(rows, list):
        raise UserError(f"expected result rows in {place}, got other JSON; name a sweep or a run")
    return [read_measured(row, str(place), "name a sweep or a run") for row in rows]


def rows_of_runs(checkpoints: Iterable[Path], device_type: str) -> list[MeasuredRow]:
    """Rows that the runs of some checkpoints hold themselves, measured on a type of device; none of a checkpoint without a run."""
    around = dict.fromkeys(place for checkpoint in checkpoints for place in list(checkpoint.absolute().parents)[:2])
    runs = [place for place in around if (place / RUN).is_file() and (place / RESULTS).is_dir()]
    return [row for run in runs for row in read_rows(run) if row.device_type == device_type]


def _values_of(file: Path) -> Any:
    if file.suffix == ".jsonl":
        return [value for _, value in json_lines(file, "name a sweep or a run")]
    if file.suffix == ".parquet":
        return [json.loads(row["row"]) for row in read_part(file, ["row"]) or []]
    return json.loads(file.read_text(encoding="utf-8"))


def _plain_seconds(measured: Iterable[Measured]) -> dict[Facts, float]:
    """Mean seconds of a plain measurement, by size of model."""
    found: dict[Facts, list[float]] = defaultdict(list)
    for one in measured:
        if one.measure is not None:
            found[one.facts].append(one.measure)
    return {facts: _mean(seconds) for facts, seconds in found.items()}


def _config(row: MeasuredRow) -> JsonObject | None:
    """All options of a row's method; of a row that keeps only those that are not at their defaults, with the others added."""
    from tinymem.mitigation.method import UNLEARNERS, parse_config

    if row.config is not None or row.method not in UNLEARNERS.names():
        return row.config
    try:
        return parse_config(UNLEARNERS.get(row.method), row.options).as_json()
    except UserError:  # an option that the method had once
        return None


def _measured(row: MeasuredRow) -> Measured | None:
    config = _config(row)
    with_tests = row.robustness is not None and row.seconds_robustness is None  # of an older TinyMem, in one number
    if row.seconds is None or not row.n_layer or config is None or row.n_parameters is None:
        return None
    return Measured(
        options=canonical_json(config),
        values=config,
        facts=(row.data, row.data_size, row.n_layer),
        n_layer=row.n_layer,
        tokens=row.row_tokens,
        parameters=row.n_parameters,
        forget=row.rows_forget or 1,
        retain=row.rows_retain,
        seconds=row.seconds,
        measure=None if with_tests else row.seconds_measure,
        protocol=row.protocol,
    )


def _facts(recipe: Recipe | Size) -> Facts:
    if isinstance(recipe, Size):
        return None, None, recipe.n_layer
    data: Any = recipe.data
    return ("wiki", None, recipe.model.n_layer) if data.kind == "wiki" else (data.family, data.size, recipe.model.n_layer)


def _at(measured: Measured, size: Size) -> Size:
    """Size that a measured run had, as far as its row records it."""
    tokens = measured.tokens or size.tokens
    return replace(
        size,
        n_layer=measured.n_layer,
        neurons=size.neurons // size.n_layer * measured.n_layer,
        mlp_weights=size.mlp_weights // size.n_layer * measured.n_layer,
        tokens=tokens,
        forget=measured.forget,
        retain=size.retain if measured.retain is None else measured.retain,
        clean=size.clean if measured.retain in (None, MAXIMUM_RETAIN) else measured.retain,
        row_flops=row_flops(measured.parameters, tokens),
    )


def _factors(measured: Measured, method: str, options: JsonObject, size: Size) -> tuple[float, float]:
    """Ratios to a measured run: number of passes, and arithmetic per pass."""
    there = _at(measured, size)
    here = replace(size, forget=measured.forget)  # how many rows are memorized is not known before
    return passes(method, options, here) / passes(method, measured.values, there), size.row_flops / there.row_flops


def _scaled(best: Measured, method: str, options: JsonObject, size: Size) -> tuple[float, float | None]:
    times, arithmetic = _factors(best, method, options, size)
    return best.seconds * times * arithmetic, None if best.measure is None else best.measure * arithmetic


def _distance(measured: Measured, options: JsonObject, size: Size, facts: Facts, method: str) -> tuple[bool, float]:
    """Sort key of measured runs by similarity: the same kind of data first, then the least scaling."""
    return (measured.facts[0] == "wiki") != (facts[0] == "wiki"), abs(math.log(math.prod(_factors(measured, method, options, size))))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _probe(recipe: Recipe, device: str) -> float:
    import torch

    from tinymem.models.gpt2 import GPT, GPTConfig

    model, data = recipe.model, recipe.data
    vocabulary = planned_vocabulary(recipe)
    config = GPTConfig(vocab_size=vocabulary, n_positions=data.row_tokens, **model.model_dump())
    gpt = GPT(config).to(device).eval()
    ids = torch.zeros(PROBE_ROWS if vocabulary < 1000 else 4, data.row_tokens, dtype=torch.long, device=device)
    with torch.no_grad():
        gpt(ids)
        return min(_seconds_of(gpt, ids, device) for _ in range(PROBES)) / len(ids)


def _seconds_of(gpt: GPT, ids: Tensor, device: str) -> float:
    import torch

    started = time.perf_counter()
    gpt(ids)
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
