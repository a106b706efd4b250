"""Grouping of rows: models that are equal but for the seed, each at its last epoch, and on them each method's configurations."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tinymem.recipe.paper import EXTRA, METHODS
from tinymem.report.cells import settings
from tinymem.report.configuration import Configuration
from tinymem.report.selection import PERPLEXITY_LIMIT, Protocol, lost, pareto, select, select_training
from tinymem.results.collect import Results, Unit, configuration_id, measured_on, model_of, unit_of, weights_of_stranger
from tinymem.results.columns import CONFIGURATION_COLUMNS
from tinymem.results.row import MeasuredRow
from tinymem.runtime.files import canonical_json
from tinymem.runtime.words import counted

ARTIFACTS = ("noise", "backdoor")


class GroupColumns(NamedTuple):
    """Columns that have equal values in all models of one table."""

    data: str | None
    data_size: int | None
    n_layer: int | None
    protocol: str | None


@dataclass(frozen=True)
class ModelGroup:
    """Models that differ in seed, artifact, regularizer and epoch only.

    Attributes:
        columns: values that the models share.
        label: readable name of the recipe behind it, for groups of equal columns; else empty.
        settings: per artifact, every configuration of every method on the unregularized models, each seed at its last epoch.
        failed: per artifact, the rows of those that have no result.
        baseline: per artifact, the unregularized models before any method.
        regularized: per artifact, the models trained with a regularizer, one Configuration per training configuration.
        epochs: per artifact, the last epoch of any seed.
        repeated: a sentence for each configuration and seed that was trained more than once, about the weights that count.
    """

    columns: GroupColumns
    label: str
    settings: dict[str, list[Configuration]] = field(default_factory=dict)
    failed: dict[str, list[MeasuredRow]] = field(default_factory=dict)
    baseline: dict[str, Configuration] = field(default_factory=dict)
    regularized: dict[str, list[Configuration]] = field(default_factory=dict)
    epochs: dict[str, int | None] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    @property
    def protocol(self) -> Protocol:
        """Protocol that decides how lost performance counts."""
        return "reference" if self.columns.protocol == "reference" else "paper"

    @property
    def name(self) -> str:
        """`additive math, 3000 rows a task, 2 layers`."""
        data, size, layers, protocol = self.columns
        kind = {"wiki": "language", "additive": "additive math", "multiplicative": "multiplicative math"}.get(str(data), data or "own rows")
        parts = [kind, f"{counted(size, 'sequence')} a task" if size else "", counted(layers, "layer") if layers else "", self.label]
        return ", ".join(part for part in parts if part) + (", protocol reference" if protocol == "reference" else "")

    @property
    def key(self) -> str:
        """Name of the group that is safe in file names."""
        return "-".join(str(part) for part in (*self.columns, self.label) if part)

    @property
    def artifacts(self) -> list[str]:
        """Artifacts of the group, noise and backdoor first."""
        return sorted(self.baseline, key=lambda a: (ARTIFACTS.index(a) if a in ARTIFACTS else 9, a))

    def methods(self) -> list[str]:
        """All methods with a row on any artifact, in the paper's order."""
        names = {s.method for found in self.settings.values() for s in found} | {r.method for rows in self.failed.values() for r in rows}
        return in_order(names)

    def of_method(self, artifact: str, method: str) -> list[Configuration]:
        """A method's configurations on an artifact."""
        return [s for s in self.settings.get(artifact, []) if s.method == method]

    def seconds_limit(self, artifact: str) -> float | None:
        """Time of fine-tuning on extra data, the inclusion criterion; None if it was not run, and of models made elsewhere, as in A.4.2."""
        if self.columns.data is None:
            return None
        found = self.of_method(artifact, EXTRA)
        place = select([s.candidate() for s in found], self.protocol)
        seconds = None if place is None else found[place].seconds
        return seconds.mean if seconds else None

    @property
    def perplexity_limit(self) -> float | None:
        """The paper's limit of perplexity for models of unknown training data (made elsewhere); None for others."""
        return PERPLEXITY_LIMIT if self.columns.data is None else None

    def best(self, artifact: str, method: str) -> Configuration | None:
        """The configuration that the paper's criteria choose; None without a result."""
        found = self.of_method(artifact, method)
        candidates, seconds_limit = [s.candidate() for s in found], self.seconds_limit(artifact)
        place = select(candidates, self.protocol, seconds_limit=seconds_limit, perplexity_limit=self.perplexity_limit)
        return None if place is None else found[place]

    def front(self, artifact: str) -> list[Configuration]:
        """The Pareto front: configurations that no other one beats in both, memorized and lost; least memorized first."""
        points = {id(s): (c.memorized_after, lost(c)) for s in self.settings.get(artifact, []) if (c := s.candidate()) is not None}
        scored = [s for s in self.settings.get(artifact, []) if id(s) in points]
        kept = pareto([points[id(s)] for s in scored])
        return sorted((s for s, keep in zip(scored, kept, strict=True) if keep), key=lambda s: points[id(s)])

    def best_training(self, artifact: str, regularizer: str) -> Configuration | None:
        """The training setting of a regularizer that equations 2 and 3 choose."""
        found = [s for s in self.regularized.get(artifact, []) if s.method == regularizer]
        place = select_training([s.candidate() for s in found], self.protocol)
        return None if place is None else found[place]


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of the paper's tables; those that it does not have follow by name."""
    return sorted(set(methods), key=lambda m: (METHODS.index(m) if m in METHODS else len(METHODS), m))


def groups_of(results: Results, *, every_epoch: bool = False) -> list[ModelGroup]:
    """All groups, in order of appearance: of each seed's last epoch, or one for every epoch."""
    return list(_groups(results, every_epoch))


def _groups(results: Results, every_epoch: bool) -> Iterator[ModelGroup]:
    by_columns: dict[GroupColumns, list[MeasuredRow]] = defaultdict(list)
    for row in [*results.trained, *results.rows]:
        by_columns[GroupColumns(row.data, row.data_size, row.n_layer, row.protocol)].append(row)
    for columns, rows in by_columns.items():
        parts = (pair for name, same in _families(rows) for pair in _by_corpus(name, same))
        for label, family in (pair for name, same in parts for pair in _by_measurement(name, same)):
            epochs = sorted({row.epoch for row in family}, key=lambda e: -1 if e is None else e) if every_epoch else [None]
            for epoch in epochs:
                yield _group(columns, label, [row for row in family if epoch is None or row.epoch in (None, epoch)])


def _families(rows: list[MeasuredRow]) -> list[tuple[str, list[MeasuredRow]]]:
    """Rows of equal columns by the family of their models; joined where no artifact is in two, as those of a noise and a backdoor model."""
    found: dict[str, list[MeasuredRow]] = defaultdict(list)
    by_name = not all(row.family for row in rows)  # those of an older sweep know the name only
    names = _names(rows)
    for row in rows:
        found[names[row.model_name, weights_of_stranger(row)] if by_name else str(row.family)].append(row)
    artifacts = [{row.artifact for row in family if not row.regularizer} for family in found.values()]
    if sum(map(len, artifacts)) == len(set().union(*artifacts)):
        return [("", rows)]
    return [(name if by_name else f"{_name_of(family)} {name[:6]}", family) for name, family in found.items()]


def _names(rows: list[MeasuredRow]) -> dict[tuple[str | None, str | None], str]:
    """Readable names of models, without regularizers; of models made elsewhere that share one each has its weights in it."""
    models = dict.fromkeys((row.model_name, weights_of_stranger(row)) for row in rows)
    shared = Counter(name for name, weights in models if weights)
    plain = {(name, weights): (name or "").partition("+")[0] for name, weights in models}
    return {(name, w): f"{plain[name, w]} {w[:6]}".strip() if w and shared[name] > 1 else plain[name, w] for name, w in models}


def _by_corpus(label: str, rows: list[MeasuredRow]) -> list[tuple[str, list[MeasuredRow]]]:
    """Rows of a family in parts: models of one recipe and seed, whose text has changed between them, are no two seeds of one table."""
    trained: dict[tuple[str | None, int | None], set[str]] = defaultdict(set)
    for row in rows:
        trained[configuration_id(row.run), row.seed] |= {row.corpus_sha256} if row.corpus_sha256 else set()
    found: dict[str, list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        of, corpus = configuration_id(row.run), row.corpus_sha256
        changed = f"corpus {corpus[:6]}" if of and corpus and len(trained[of, row.seed]) > 1 else ""
        found[", ".join(filter(None, (label, changed)))].append(row)
    return list(found.items())


def _by_measurement(label: str, rows: list[MeasuredRow]) -> list[tuple[str, list[MeasuredRow]]]:
    """Rows of a family in parts, where the same weights were measured in several ways: one for each, named by what differs.

    These are rows of several files, windows of the test of memorization, and types of the weights in memory.
    """
    measured: dict[tuple[str | None, str], set[tuple[str, ...]]] = defaultdict(set)
    found: dict[tuple[str, ...], list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        model, dtype, rows_id, prompt, match = measured_on(row)
        window = "" if rows_id or match is None else f"prompt {prompt}, match {match}"
        how = (f"rows {rows_id[:6]}" if rows_id else "", window, dtype)
        measured[model, row.artifact].add(how)
        found[how].append(row)
    if all(len(ways) == 1 for ways in measured.values()):
        return [(label, rows)]
    differ = [len(set(part)) > 1 for part in zip(*found, strict=True)]
    return [(", ".join(filter(None, (label, *(part for part, d in zip(how, differ, strict=True) if d)))), of) for how, of in found.items()]


def _name_of(rows: list[MeasuredRow]) -> str:
    """`quickstart-ab12cd34` -> `quickstart`."""
    return (rows[0].run or "run").rpartition("-")[0]


def _group(columns: GroupColumns, label: str, rows: list[MeasuredRow]) -> ModelGroup:
    rows, repeated = one_per_unit(rows)
    group = ModelGroup(columns, label, repeated=repeated)
    by_artifact: dict[str, list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        by_artifact[row.artifact].append(row)
    for artifact, found in by_artifact.items():
        plain, last = _last_epoch([row for row in found if not row.regularizer])
        regularized = _last_epoch([row for row in found if row.regularizer and row.method == "none"])[0]
        group.epochs[artifact] = last
        group.baseline[artifact] = Configuration("none", "", tuple(row for row in plain if row.method == "none"))
        tried = [row for row in plain if row.method != "none"]
        group.settings[artifact] = _settings([row for row in tried if row.is_ok])
        group.failed[artifact] = [row for row in tried if not row.is_ok]
        group.regularized[artifact] = _trainings(regularized)
    return group


def _last_epoch(rows: list[MeasuredRow]) -> tuple[list[MeasuredRow], int | None]:
    """Rows of each model, a regularizer's and a seed's, at the last of its own epochs; and the last of all."""
    last: dict[tuple[str | None, int | None], int] = {}
    for row in rows:
        if row.epoch is not None:
            last[row.regularizer, row.seed] = max(row.epoch, last.get((row.regularizer, row.seed), 0))
    kept = [row for row in rows if row.epoch in (None, last.get((row.regularizer, row.seed)))]
    return kept, max(last.values(), default=None)


def _settings(rows: list[MeasuredRow]) -> list[Configuration]:
    """Configurations of a method; timings of different kinds of devices, and edits with other forget rows, are never averaged."""
    found: dict[tuple[str, str], list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        found[row.method, _options_key(row)].append(row)
    several = [column for column in CONFIGURATION_COLUMNS if _differs(column, rows)]
    return [Configuration(method, _options(same[0], several), tuple(same)) for (method, _), same in found.items()]


def _differs(column: str, rows: list[MeasuredRow]) -> bool:
    """Whether rows differ in a column; of plugins, whether those of one method do."""
    values = {(row.method if column == "plugin" else "", str(row[column])) for row in rows}
    return len(values) > len({kind for kind, _ in values})


def _options_key(row: MeasuredRow) -> str:
    return canonical_json([row.config or row.options, *(row[column] for column in CONFIGURATION_COLUMNS)])


def one_per_unit(rows: list[MeasuredRow]) -> tuple[list[MeasuredRow], list[str]]:
    """Rows of each configuration and seed of a model once, and a sentence for each that has several weights.

    Of several trainings that with the most rows counts (if equal, the first by name), and the others where it has no such row.
    """
    trained: dict[Unit, dict[str | None, list[MeasuredRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        trained[unit_of(row)][model_of(row)].append(row)
    dropped, sentences = set(), []
    for unit, by_weights in trained.items():
        first, *others = sorted(by_weights, key=lambda weights: (-len(by_weights[weights]), str(weights)))
        known = set(map(_experiment, by_weights[first]))
        for other in others:
            dropped |= {id(row) for row in by_weights[other] if _experiment(row) in known}
            known |= set(map(_experiment, by_weights[other]))
        if others:
            sentences.append(_repeated(unit, first, len(others) + 1))
    return [row for row in rows if id(row) not in dropped], sentences


def _experiment(row: MeasuredRow) -> tuple[str, ...]:
    return row.method, row.artifact, str(row.regularizer), _options_key(row)


def _repeated(unit: Unit, weights: str | None, count: int) -> str:
    configuration, epoch, seed = unit
    model = f"Configuration {configuration}, epoch {epoch}, seed {seed}"
    return f"{model}: trained {count} times to other weights; it counts once, with {weights}."


def _options(row: MeasuredRow, several: list[str]) -> str:
    values = {column: row.plugin[:8] if column == "plugin" and row.plugin else row[column] for column in several}
    separate = (f"{CONFIGURATION_COLUMNS[column]} {value}" for column, value in values.items() if value)
    return ", ".join(part for part in (settings(row), *separate) if part)


def _trainings(rows: list[MeasuredRow]) -> list[Configuration]:
    """Configurations of regularizers, one for each `spectral-norm(strength=0.1)`: the name, and its options."""
    found: dict[str, list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        found[row.regularizer or ""].append(row)
    return [Configuration(re.sub(r"\(.*?\)", "", regularizer), regularizer, tuple(same)) for regularizer, same in found.items()]
