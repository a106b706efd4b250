"""The `matrix:` of a recipe: many runs that differ in some keys, each with a name.

    matrix:
      data.family: [additive, multiplicative]      # a key and its values
      seed: [0, 1, 3]
      regularizer:                                 # or names, each for any number of keys
        none: {}
        goldfish: {training.regularizers: [{kind: goldfish}]}

The runs are all combinations, the last axis changing fastest; the first above is `<recipe's name>-additive-seed0-none`. A `--set` of an
axis fixes it (`seed=0`, `regularizer=goldfish`), and other `--set` win over the axes. Everything here works on plain
dictionaries; `recipe.load_matrix` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Protocol, TypeVar

from tinymem.errors import UserError, did_you_mean
from tinymem.recipe.source import parse_override, set_value
from tinymem.runtime.json import Json, JsonObject

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
WORDS = {"n_layer": "layers", "n_embd": "width", "learning_rate": "rate", "weight_decay": "decay"}


@dataclass(frozen=True)
class Axis:
    """One axis: the values that each label sets. `named` if the recipe defines the labels as names."""

    key: str
    settings: dict[str, JsonObject]
    named: bool

    def fixed(self, value: Json) -> Axis:
        """The axis at one value alone, which is one of its labels or, for a recipe's key, any value.

        Raises:
            UserError: no such label.
        """
        if not self.named:
            return _listed(self.key, [value])
        label = str(value)
        if label not in self.settings:
            raise UserError(f"unknown value '{label}' of the matrix's '{self.key}'; {did_you_mean(label, self.settings)}")
        return Axis(self.key, {label: self.settings[label]}, named=True)


def without_matrix(values: JsonObject, overrides: Sequence[str]) -> JsonObject:
    """The values of one recipe: the matrix's axes count only as far as an override fixes them."""
    base, axes, rest = _split(values, overrides)
    fixed = [axis for axis, is_fixed in axes if is_fixed]
    return _with_all(base, [setting for axis in fixed for setting in axis.settings.values()], rest)


def combinations(values: JsonObject, overrides: Sequence[str]) -> list[tuple[str, JsonObject]]:
    """Label and values of every run; without a matrix one run with an empty label."""
    base, axes, rest = _split(values, overrides)
    cells = product(*(axis.settings.items() for axis, _ in axes))
    return [("-".join(label for label, _ in cell), _with_all(base, [setting for _, setting in cell], rest)) for cell in cells]


def _split(values: JsonObject, overrides: Sequence[str]) -> tuple[JsonObject, list[tuple[Axis, bool]], list[tuple[str, Json]]]:
    """The values without a matrix, the axes with whether an override fixed them, and the other overrides."""
    base = deepcopy(values)
    parsed = [parse_override(override) for override in overrides]
    for key, value in parsed:
        if key == "matrix":
            base[key] = value
        elif key.startswith("matrix."):  # the axes' own keys have dots
            matrix = base.get("matrix")
            base["matrix"] = {**(matrix if isinstance(matrix, dict) else {}), key.removeprefix("matrix."): value}
    axes = _axes(base.pop("matrix", None))
    given = dict(parsed)
    rest = [(key, value) for key, value in parsed if key not in axes and key.partition(".")[0] != "matrix"]
    return base, [(axis.fixed(given[key]), True) if key in given else (axis, False) for key, axis in axes.items()], rest


def _with_all(base: JsonObject, settings: Sequence[JsonObject], overrides: Sequence[tuple[str, Json]]) -> JsonObject:
    made = deepcopy(base)
    for setting in settings:
        for key, value in setting.items():
            set_value(made, key, deepcopy(value))
    for key, value in overrides:
        set_value(made, key, deepcopy(value))
    return made


def _axes(matrix: Json) -> dict[str, Axis]:
    if matrix is None:
        return {}
    if not isinstance(matrix, dict):
        raise UserError(f"expected `key: [values]` lines in matrix, got {type(matrix).__name__}")
    return {str(key): _axis(str(key), values) for key, values in matrix.items()}


def _axis(key: str, values: Json) -> Axis:
    if isinstance(values, list) and values:
        return _listed(key, values)
    if isinstance(values, dict) and values:
        settings = {label: setting or {} for label, setting in values.items() if setting is None or isinstance(setting, dict)}
        if len(settings) == len(values):
            return Axis(key, {_checked(key, str(label)): setting for label, setting in settings.items()}, named=True)
    raise UserError(f"expected matrix.{key} to be a list of values, or names with the keys that each sets, got {values!r}")


def _listed(key: str, values: list[Json]) -> Axis:
    return Axis(key, {_label(key, value): {key: value} for value in values}, named=False)


def _label(key: str, value: Json) -> str:
    """Label of a value in names of runs: `additive` for a word, `layers4` for 4 layers."""
    last = key.rpartition(".")[2]
    return _checked(key, value if isinstance(value, str) else f"{WORDS.get(last, last)}{value}")


def _checked(key: str, label: str) -> str:
    if not LABEL.fullmatch(label):
        raise UserError(f"expected words or numbers in matrix.{key}, got '{label}'; name each value: {key}: {{name: {{key: value}}}}")
    return label


class Named(Protocol):
    """Protocol of runs and models, which have a name."""

    @property
    def name(self) -> str:
        """Name of the run or model, which `--only` matches."""


N = TypeVar("N", bound=Named)


def pick(runs: Sequence[N], only: Sequence[str] = (), shard: str | None = None) -> list[N]:
    """The runs whose name is one of `only` (names or globs), of these every n-th for shard `i/n` (from 1).

    Raises:
        UserError: a name or glob of no run, or no shard `i/n`.
    """
    names = [run.name for run in runs]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"no run is named '{pattern}'; {_near(pattern, names)}")
    picked = [run for run in runs if not only or any(fnmatchcase(run.name, pattern) for pattern in only)]
    if shard is None:
        return picked
    number, count = parse_shard(shard)
    return picked[number - 1 :: count]


def parse_shard(shard: str) -> tuple[int, int]:
    """`3/16` -> (3, 16): which share, from 1, of how many.

    Raises:
        UserError: no such share.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", shard)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"expected --shard i/n with i from 1 to n, as in 3/16, got '{shard}'")
    return number, count


def _near(pattern: str, names: list[str]) -> str:
    near = did_you_mean(pattern, names)
    return near if near.startswith("did") or len(names) <= 4 else f"--list names all {len(names)}"
