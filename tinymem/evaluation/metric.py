"""The registry of metrics: one file per metric, whose docstring is its description.

    @metric("my-metric", column=MetricColumn("mine %", ("all", "share"), scale=100, digits=1))
    def my_metric(view, kind):
        \"\"\"Formula, unit, direction, range and source, each on a line of its own as in tinymem/evaluation/metrics/.\"\"\"
        return view.by_group(kind, flags)

A metric is computed of each artifact (`per="artifact"`, called with the view and the artifact's kind) or once of the model
(`per="model"`, called with the view). It returns a value that JSON can hold, or None where it has no meaning; every row stores all of
it, and a `MetricColumn` selects the number that the report's table `metrics` shows. `tinymem/evaluation/view.py` lists its inputs.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tinymem.errors import UserError
from tinymem.evaluation.forward import Key, TokenQuery
from tinymem.evaluation.inputs import EvaluationInputs
from tinymem.recipe.evaluation import ALL, DEFAULT
from tinymem.registry import Registry, origin_of
from tinymem.runtime.json import Json

FIELDS = ("Formula", "Unit", "Direction", "Range", "Source")
Function = Callable[..., Json]


@dataclass(frozen=True)
class MetricColumn:
    """A column of the report's table `metrics`.

    Attributes:
        head: its title.
        path: keys that lead to the number in the metric's result, such as ("all", "share"); () where the result is a number.
        scale: factor for display, such as 100 for a share in percent.
        digits: digits after the point.
        note: a sentence below the table.
    """

    head: str
    path: tuple[str, ...] = ()
    scale: float = 1
    digits: int = 3
    note: str = ""

    def number_in(self, value: Json) -> float | None:
        """The unscaled number in a metric's result; None where it has none."""
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Metric:
    """A registered metric: its function, its requirements, and the columns that reports show."""

    name: str
    function: Function
    per: Literal["artifact", "model"]
    default: bool
    """True for cheap metrics, which are measured unless a recipe lists others."""
    rows: Callable[[EvaluationInputs], dict[Key, TokenQuery]] | None
    """Further rows for the forward plan, found in `view.scores` under the same keys."""
    requires: tuple[str, str] | None
    """A module that must be installed, and the extra of TinyMem that brings it."""
    columns: tuple[MetricColumn, ...] = ()
    """Columns of the metric in a report, each with its number's path in the result."""

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return origin_of(self.function)

    @property
    def documentation(self) -> str:
        """The docstring of the metric's function or, where that does not describe it, of its module."""
        texts = [inspect.cleandoc(owner.__doc__ or "") for owner in (self.function, inspect.getmodule(self.function))]
        return next((text for text in texts if f"{FIELDS[0]}:" in text), texts[0])

    def field(self, name: str) -> str:
        """Text of the field `name:` of the documentation, continued lines joined; a dash where the field is missing."""
        found = re.search(rf"^{name}:\s*(.*(?:\n[ \t]+\S.*)*)", self.documentation, re.MULTILINE)
        return " ".join(found[1].split()) if found else "–"


METRICS: Registry[Metric] = Registry("metric", packages=("tinymem.evaluation.metrics",), entry_points="tinymem.metrics")


def metric(
    name: str,
    *,
    per: Literal["artifact", "model"] = "artifact",
    default: bool = False,
    rows: Callable[[EvaluationInputs], dict[Key, TokenQuery]] | None = None,
    requires: tuple[str, str] | None = None,
    column: MetricColumn | Sequence[MetricColumn] = (),
) -> Callable[[Function], Function]:
    """Register a function `(view, kind)` or, per model, `(view)`, that returns a number, a dictionary that JSON can hold, or None.

    Args:
        name: the metric's name in recipes and on the command line.
        per: `artifact` for one value per artifact, `model` for one value per model.
        default: measure the metric unless a recipe lists others.
        rows: further rows for the one pass over all rows, found in `view.scores` under the same keys.
        requires: a module that must be installed, and the extra of TinyMem that brings it.
        column: how the report shows it, one column or several; none by default.

    Raises:
        UserError: another metric has the name, or a column is none.
    """
    columns = (column,) if isinstance(column, MetricColumn) else tuple(column)
    if not all(isinstance(one, MetricColumn) for one in columns):
        raise UserError(f"expected a MetricColumn, or several, as column of metric '{name}', got {column!r}")

    def register(function: Function) -> Function:
        METRICS.register(name, Metric(name, function, per, default, rows, requires, columns))
        return function

    return register


def chosen_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names with `default` and `all` resolved, each once, sorted. `all` are those that can run here; a warning names the others.

    Raises:
        UserError: an unknown name, or one of a metric that needs a module that is not installed.
    """
    found: set[str] = set()
    for name in names:
        if name == ALL:
            found |= _all_installed()
        elif name == DEFAULT:
            found |= {n for n in METRICS.names() if METRICS.get(n).default}
        else:
            found.add(METRICS.get(name).name)
    for name in found:
        if lacks := _lacks(METRICS.get(name)):
            raise UserError(f"the metric '{name}' needs {lacks}, or leave it out")
    return tuple(sorted(found))


def _all_installed() -> set[str]:
    lacks = {name: lacks for name in METRICS.names() if (lacks := _lacks(METRICS.get(name)))}
    if lacks:
        others = "; ".join(f"'{name}' needs {what}" for name, what in lacks.items())
        warnings.warn(f"all metrics are those that are installed: {others}", stacklevel=1)  # from one place: said once
    return {*METRICS.names()} - {*lacks}


def _lacks(metric: Metric) -> str:
    """What must be installed for a metric, and how; empty where nothing is missing."""
    if metric.requires is None:
        return ""
    module, extra = metric.requires
    try:
        importlib.import_module(module)
    except ImportError:
        return f"{module}, which is not installed; try: pip install 'tinymem[{extra}]'"
    return ""
