"""A published table beside our rows: the runs that are compared, their numbers, and the evidence for each difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.paper import FINETUNINGS
from tinymem.report.configuration import Configuration, by_held_out
from tinymem.report.configurations import GroupColumns, ModelGroup, groups_of, in_order
from tinymem.report.means import Mean, mean_of
from tinymem.report.published import Published, PublishedRow, published
from tinymem.report.selection import Protocol, select
from tinymem.results.collect import results_of
from tinymem.results.row import MeasuredRow
from tinymem.zoo.reasons import ACCURACY_POINTS, PERPLEXITY_PERCENT, Evidence, Pair, Pairs, reason_of

Artifact = Literal["noise", "backdoor"]
ARTIFACTS: tuple[Artifact, ...] = ("noise", "backdoor")
PUBLISHED_SIZES = {"neuron": (512, "neuron of 512"), "weight": (512 * 128, "weight of a matrix")}
"""Neurons of a layer and weights of a matrix in the published models, whose methods round a ratio of them down."""


@dataclass(frozen=True)
class Line:
    """One method of a table: ours, chosen by M - P, beside the published row, with the reason for a difference.

    `chosen` is `within the limit` of time or `without it` where the two differ.
    """

    method: str
    chosen: str
    ours: Configuration
    published: PublishedRow
    pairs: Pairs
    reason: str


@dataclass(frozen=True)
class Reproduction:
    """The two sides of one artifact's half of a table.

    Attributes:
        group: our models under protocol `paper`, all epochs as one.
        reference: the same models measured as the published code measured; None without such rows.
    """

    artifact: Artifact
    table: Published
    group: ModelGroup
    reference: ModelGroup | None

    def lines(self) -> list[Line]:
        """The lines of the published table that we have rows of, in its order."""
        names = [method for method in in_order(self.table.rows) if self._of(self.group, method)]
        found = [(method, chosen, ours) for method in names for chosen, ours in self.choices(method)]
        return [line for method, chosen, ours in found if (line := self._line(method, chosen, ours)) is not None]

    def choices(self, method: str) -> list[tuple[str, Configuration]]:
        """The best run of a method within the time limit and without it, each with those words where they differ."""
        limited, free = self.best(method), self.best(method, limited=False)
        if limited is None or free is None:
            return []
        return [("", limited)] if limited is free else [("within the limit", limited), ("without it", free)]

    def settings(self, method: str) -> list[Configuration]:
        """The best run of a method within the time limit, and a better one without it."""
        return [setting for _, setting in self.choices(method)]

    def best(self, method: str, *, limited: bool = True, rule: Protocol = "paper", group: ModelGroup | None = None) -> Configuration | None:
        """The configuration of a method that a rule chooses, among those within the time of fine-tuning on extra data or among all."""
        group = group or self.group
        found = self._of(group, method)
        limit = group.seconds_limit(self.artifact) if limited else None
        place = select([s.candidate() for s in found], rule, seconds_limit=limit)
        return None if place is None else found[place]

    def _of(self, group: ModelGroup, method: str) -> list[Configuration]:
        baseline = group.baseline.get(self.artifact)
        return ([baseline] if baseline and baseline.rows else []) if method == "none" else group.of_method(self.artifact, method)

    def _line(self, method: str, chosen: str, ours: Configuration) -> Line | None:
        pairs = self.pairs(ours, method)
        if not pairs:
            return None
        evidence = [Evidence(words, found) for words, other in self._others(method, ours) if (found := self.pairs(other, method))]
        unedited = self._of(self.group, "none") if (words := no_edit(method)) else []
        evidence += [Evidence(words, found, is_run=False) for model in unedited if (found := self.pairs(model, method))]
        return Line(method, chosen, ours, self.table.rows[method], pairs, reason_of(pairs, evidence))

    def _others(self, method: str, ours: Configuration) -> Iterator[tuple[str, Configuration]]:
        """Other choices and other measurements, in the order in which they may be given as the reason."""
        free = self.best(method, limited=False)
        if free is not None and free is not ours:
            yield f"no limit of time, {free.options}", free
        printed = self.best(method, rule="reference")
        if printed is not None and printed is not ours:
            yield f"the rule as printed (M + P), {printed.options}", printed
        rules: tuple[Protocol, ...] = ("reference", "paper")
        for rule, words in zip(rules, ("chosen by M + P", "chosen by M - P"), strict=True):
            other = self.best(method, limited=False, rule=rule, group=self.reference) if self.reference else None
            if other is not None:
                yield f"protocol reference{f', {other.options}, {words}' if other.options else ''}", other

    def pairs(self, ours: Configuration, method: str) -> Pairs:
        """Percent memorized; and accuracy in percent of the trained model, of a method what it cost (`cost_of`).

        The trained model's perplexity is not compared: ours is of another text and another tokenizer than the published one.
        """
        memorized, performance = ours.memorized("after"), ours.performance("after")
        theirs, cost = self._published_cost(method), mean_of(cost_of(row) for row in ours.rows)
        if memorized is None or performance is None or theirs is None or cost is None:
            return ()
        first = Pair(memorized, self.table.rows[method].memorized, _one_row(ours))
        if method != "none":
            return first, Pair(cost, theirs, self._resolution)
        return (first, Pair(performance, theirs, self._resolution)) if self.table.metric == "accuracy" else (first,)

    @property
    def _resolution(self) -> float:
        return ACCURACY_POINTS if self.table.metric == "accuracy" else PERPLEXITY_PERCENT

    def _published_cost(self, method: str) -> float | None:
        """What a method cost, as `cost_of`; of the trained model its own performance."""
        after, before = self.table.rows[method].performance, self.table.rows["none"].performance
        if after is None or before is None:
            return None
        if method == "none":
            return after
        return before - after if self.table.metric == "accuracy" else 100 * (after / before - 1)


def no_edit(method: str) -> str:
    """Words for the least ratio of a method's published grid (A.3.5) where it rounds to nothing, which ours refuse; else none.

    Greedy drops weights of the whole model one by one, and rounds to some.
    """
    registered = UNLEARNERS.get(method) if method in UNLEARNERS.names() else None
    if registered is None or registered.steps is not None:
        return ""
    ratios, (size, of) = registered.config.published_grid.get("ratio", ()), PUBLISHED_SIZES.get(str(registered.properties.unit), (0, ""))
    least = min((ratio for ratio in ratios if isinstance(ratio, float)), default=1.0)
    return f"perhaps no edit: a ratio of {100 * least:g} % rounds to no {of}, which" if size and int(least * size) == 0 else ""


def is_of_older_precision(row: MeasuredRow) -> bool:
    """Whether a fine-tuning's row on a GPU is from before fine-tunings took training's bf16 there, and computed in fp32."""
    return row.method in FINETUNINGS and row.device_type == "cuda" and row.computed_in is None


def cost_of(row: MeasuredRow) -> float | None:
    """What an edit cost: points of accuracy, or percent of perplexity that it added."""
    before, after = row.performance_before, row.performance_after
    if before is None or after is None:
        return None
    return 100 * (before - after) if row.is_share else 100 * (after / before - 1)


def _one_row(ours: Configuration) -> float:
    """Percent that one of the rows is which count as memorized or not."""
    counts = ours.counts("after")
    rows = counts.rows / len(ours.rows) if counts else mean_of(row.rows_scored for row in ours.rows)
    number = rows.mean if isinstance(rows, Mean) else rows
    return 100 / number if number else 0.0


def reproductions(rows: Iterable[MeasuredRow], table: str) -> list[Reproduction]:
    """Both halves of a table, as far as there are rows."""
    groups = groups_of(results_of([comparable(row) for row in rows]))
    found = []
    for artifact in ARTIFACTS:
        half = next(p for p in published() if p.origin == table and p.column("artifact") == artifact)
        own = [group for group in groups if artifact in group.artifacts and _same_model(group.columns, half)]
        paper = next((group for group in own if group.protocol == "paper"), None)
        if paper is not None:
            reference = next((group for group in own if group.protocol == "reference"), None)
            found.append(Reproduction(artifact, half, paper, reference))
    return found


def comparable(row: MeasuredRow) -> MeasuredRow:
    """The row as it is compared: whatever its epoch, and a backdoor's under protocol `paper` by the held-out rows, as published."""
    return replace(by_held_out(row), epoch=None)


def is_of_table(row: MeasuredRow, table: str) -> bool:
    """Whether a row is of a model that a published table has."""
    return any(_same_model(row, half) for half in published() if half.origin == table)


def _same_model(columns: GroupColumns | MeasuredRow, half: Published) -> bool:
    names = ("data", "data_size", "n_layer")
    return all(getattr(columns, name) == half.column(name) for name in names)
