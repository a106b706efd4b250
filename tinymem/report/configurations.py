"""Rows that belong together: models alike but for the seed, at their last epoch, and on them each method's configurations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tinymem.report.cells import settings
from tinymem.report.configuration import Configuration
from tinymem.report.selection import PERPLEXITY_LIMIT, Protocol, select, select_training
from tinymem.results.collect import Results
from tinymem.results.row import is_ok
from tinymem.results.run_folder import Row
from tinymem.runtime.files import canonical_json

FACTS = ("data", "data_size", "n_layer", "protocol")
EXTRA = "finetune-extra"
# The order of the paper's tables; other methods follow by name.
ORDER = (
    "none", "spectral-norm", "loss-truncation", "example-tied-dropout", "mem-sinks", "goldfish", "finetune-both", "finetune-clean",
    EXTRA, "hard-concrete", "slim", "act", "ig", "zero", "greedy", "sou", "durable", "durable-agg", "subnet", "balanced-subnet",
)  # fmt: skip
ARTIFACTS = ("noise", "backdoor")
# Columns of a setting beside its method and options, with the word that tells two settings apart.
SEPARATE = {"device_type": "on", "forget": "forget", "forget_fraction": "forget fraction"}


@dataclass(frozen=True)
class ModelGroup:
    """Models that differ in seed, artifact, regularizer and epoch only.

    Attributes:
        facts: data, data_size, n_layer and protocol.
        label: readable name of the recipe behind it, for groups of equal facts; else empty.
        settings: per artifact, every configuration of every method on the unregularized models at their last epoch.
        failed: per artifact, the rows of those that have no result.
        baseline: per artifact, the unregularized models before any method.
        regularized: per artifact, the models trained with a regularizer, one Configuration per training configuration.
        epochs: per artifact, the last epoch.
    """

    facts: tuple[Any, ...]
    label: str
    settings: dict[str, list[Configuration]] = field(default_factory=dict)
    failed: dict[str, list[Row]] = field(default_factory=dict)
    baseline: dict[str, Configuration] = field(default_factory=dict)
    regularized: dict[str, list[Configuration]] = field(default_factory=dict)
    epochs: dict[str, int | None] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """How losses count."""
        return "reference" if self.facts[3] == "reference" else "paper"

    @property
    def name(self) -> str:
        """`additive math, 3000 rows a task, 2 layers`."""
        data, size, layers, protocol = self.facts
        kind = {"wiki": "language", "additive": "additive math", "multiplicative": "multiplicative math"}.get(data, str(data or "own rows"))
        parts = [kind, f"{size:,} sequences a task" if size else "", f"{layers} layers" if layers else "", self.label]
        return ", ".join(part for part in parts if part) + (", protocol reference" if protocol == "reference" else "")

    @property
    def key(self) -> str:
        """The same, for file names."""
        return "-".join(str(part) for part in (*self.facts, self.label) if part)

    @property
    def artifacts(self) -> list[str]:
        """Noise and backdoor first."""
        return sorted(self.baseline, key=lambda a: (ARTIFACTS.index(a) if a in ARTIFACTS else 9, a))

    def methods(self) -> list[str]:
        """All methods with a row on any artifact, in the paper's order."""
        names = {s.method for found in self.settings.values() for s in found} | {r["method"] for rows in self.failed.values() for r in rows}
        return in_order(names)

    def of_method(self, artifact: str, method: str) -> list[Configuration]:
        """A method's configurations on an artifact."""
        return [s for s in self.settings.get(artifact, []) if s.method == method]

    def seconds_limit(self, artifact: str) -> float | None:
        """Time of fine-tuning on extra data, the inclusion criterion; None if it was not run."""
        found = self.of_method(artifact, EXTRA)
        place = select([s.candidate() for s in found], self.protocol)
        seconds = None if place is None else found[place].seconds
        return seconds.mean if seconds else None

    @property
    def perplexity_limit(self) -> float | None:
        """The paper's for models made elsewhere."""
        return PERPLEXITY_LIMIT if self.facts[0] is None else None

    def best(self, artifact: str, method: str) -> Configuration | None:
        """The configuration that the paper's criteria choose; None without a result."""
        found = self.of_method(artifact, method)
        limits = {"seconds_limit": self.seconds_limit(artifact), "perplexity_limit": self.perplexity_limit}
        place = select([s.candidate() for s in found], self.protocol, **limits)
        return None if place is None else found[place]

    def best_training(self, artifact: str, regularizer: str) -> Configuration | None:
        """The training setting of a regularizer that equations 2 and 3 choose."""
        found = [s for s in self.regularized.get(artifact, []) if s.method == regularizer]
        place = select_training([s.candidate() for s in found], self.protocol)
        return None if place is None else found[place]


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of the paper's tables."""
    return sorted(set(methods), key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m))


def groups_of(results: Results, *, every_epoch: bool = False) -> list[ModelGroup]:
    """All groups, in order of appearance: of the last epoch of each artifact, or one for every epoch."""
    return list(_groups(results, every_epoch))


def _groups(results: Results, every_epoch: bool) -> Iterator[ModelGroup]:
    by_facts: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in [*results.trained, *results.rows]:
        by_facts[tuple(row.get(fact) for fact in FACTS)].append(row)
    for facts, rows in by_facts.items():
        for label, family in _families(rows):
            epochs = sorted({row.get("epoch") for row in family}, key=lambda e: -1 if e is None else e) if every_epoch else [None]
            for epoch in epochs:
                yield _group(facts, label, [row for row in family if epoch is None or row.get("epoch") in (None, epoch)])


def _families(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Rows of equal facts by the family of their models; joined where no artifact is in two, as those of a noise and a backdoor model."""
    found: dict[str, list[Row]] = defaultdict(list)
    by_name = not all(row.get("family") for row in rows)  # rows of a sweep know the name only
    for row in rows:
        found[str(row.get("model_name") or "").partition("+")[0] if by_name else str(row["family"])].append(row)
    artifacts = [{row["artifact"] for row in family if not row.get("regularizer")} for family in found.values()]
    if sum(map(len, artifacts)) == len(set().union(*artifacts)):
        return [("", rows)]
    return [(name if by_name else f"{_name_of(family)} {name[:6]}", family) for name, family in found.items()]


def _name_of(rows: list[Row]) -> str:
    """`quickstart-ab12cd34` -> `quickstart`."""
    return str(rows[0].get("run") or "run").rpartition("-")[0]


def _group(facts: tuple[Any, ...], label: str, rows: list[Row]) -> ModelGroup:
    group = ModelGroup(facts, label)
    by_artifact: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_artifact[row["artifact"]].append(row)
    for artifact, found in by_artifact.items():
        plain, last = _last_epoch([row for row in found if not row.get("regularizer")])
        regularized = _last_epoch([row for row in found if row.get("regularizer") and row["method"] == "none"])[0]
        group.epochs[artifact] = last
        group.baseline[artifact] = Configuration("none", "", tuple(row for row in plain if row["method"] == "none"))
        tried = [row for row in plain if row["method"] != "none"]
        group.settings[artifact] = _settings([row for row in tried if is_ok(row)])
        group.failed[artifact] = [row for row in tried if not is_ok(row)]
        group.regularized[artifact] = _trainings(regularized)
    return group


def _last_epoch(rows: list[Row]) -> tuple[list[Row], int | None]:
    epochs = [row["epoch"] for row in rows if row.get("epoch") is not None]
    last = max(epochs, default=None)
    return [row for row in rows if row.get("epoch") in (None, last)], last


def _settings(rows: list[Row]) -> list[Configuration]:
    """Timings of different kinds of devices, and edits with other forget rows, are never averaged: those are settings of their own."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        apart = (row.get(column) for column in SEPARATE)
        found[row["method"], canonical_json(row.get("config") or row.get("options") or {}), *apart].append(row)
    several = [column for column in SEPARATE if len({row.get(column) for row in rows}) > 1]
    return [Configuration(key[0], _options(same[0], several), tuple(same)) for key, same in found.items()]


def _options(row: Row, several: list[str]) -> str:
    return ", ".join(part for part in (settings(row), *(f"{SEPARATE[c]} {row[c]}" for c in several if row.get(c))) if part)


def _trainings(rows: list[Row]) -> list[Configuration]:
    """`spectral-norm(strength=0.1)` -> the regularizer, and its options."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["regularizer"]].append(row)
    return [Configuration(re.sub(r"\(.*?\)", "", said), said, tuple(same)) for said, same in found.items()]
