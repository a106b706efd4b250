"""Shipped training curves: what regularizers and the factors of A.1.3 did to memorization, beside what the paper says."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tinymem.recipe.recipe import Recipe, load_recipe
from tinymem.report.cells import DASH, percent_of
from tinymem.report.means import Mean
from tinymem.report.published import Published, footnotes, published
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.curve import CurvePoint, read_curve
from tinymem.results.model_columns import recipe_columns
from tinymem.results.row import Identity
from tinymem.results.share import Share, ShareColumn
from tinymem.runtime.words import counted
from tinymem.zoo.catalogue import CURVE, RECIPE
from tinymem.zoo.reasons import ACCURACY_POINTS, Pair, reason_of

FOLDERS = ("", "regularized", "slices")
REGULARIZERS = (
    *(Column(title, numeric=False) for title in ("artifact", "regularizer", "epoch")),
    *(Column(title, "% memorized") for title in ("without it", "ours", "paper")),
    *(Column(title, "points of accuracy lost") for title in ("ours", "paper")),
    Column("reason for the difference", numeric=False),
)
EFFECTS = tuple(Column(title, numeric=False) for title in ("the paper's finding (A.1.3)", "models", "epoch", "% memorized, ours", "holds"))


@dataclass(frozen=True)
class Trained:
    """A training whose curve is shipped.

    Attributes:
        name: of its folder.
        recipe: resolved.
        columns: of its model.
        artifact: that was planted.
        points: the curve by whole epochs.
    """

    name: str
    recipe: Recipe
    columns: Identity
    artifact: str
    points: dict[int, CurvePoint]

    def share(self, epoch: int) -> Share:
        """Memorized rows at an epoch."""
        return _share(self.points[epoch].memorized[self.artifact])

    @property
    def regularizer(self) -> str:
        """Kind of the regularizer; empty without one."""
        return (self.columns.regularizer or "").partition("(")[0]

    @property
    def key(self) -> Hashable:
        """What is equal among models that differ by one factor."""
        return self.columns.data, self.artifact, self.recipe.seed


def trained_in(zoo: Path) -> list[Trained]:
    """The trainings whose curves lie in a zoo, by name, those whose checkpoint is shipped first.

    Raises:
        UserError: a damaged recipe or curve.
    """
    folders = [path.parent for part in FOLDERS for path in sorted((zoo / part).glob(f"*/{CURVE}"))]
    return [_trained(folder) for folder in folders]


def _trained(folder: Path) -> Trained:
    recipe = load_recipe(folder / RECIPE)
    points = {point.epoch: point for point in read_curve(folder / CURVE) if not point.part}
    return Trained(folder.name, recipe, recipe_columns(recipe), recipe.artifacts[0].kind, points)


def regularizer_tables(trained: Sequence[Trained]) -> list[Table]:
    """Models with a regularizer beside the same model without it at that epoch, and beside the published line."""
    lines = [line for model in trained if model.regularizer and (line := _regularized(model, trained))]
    first = "One seed. Points lost are those to the model without it at the same epoch, of the paper's at the end of its training."
    notes = (first, *dict.fromkeys(note for model in trained if model.regularizer for note in _footnotes(model)))
    return [Table("regularizers", "regularizers", "Table 1 with regularizers", REGULARIZERS, tuple(lines), notes)]


def _regularized(model: Trained, trained: Iterable[Trained]) -> tuple[Cell, ...] | None:
    epoch = max(model.points)
    plain = next((o for o in trained if not o.regularizer and o.key == model.key and _is_alike(o, model) and epoch in o.points), None)
    if plain is None:
        return None
    after, before = model.points[epoch].accuracy, plain.points[epoch].accuracy
    lost = 100 * (before - after) if before is not None and after is not None else None
    theirs = _published(model)
    return (
        *(Cell(text) for text in (model.artifact, str(model.columns.regularizer), f"{epoch:,}")),
        *(Cell(percent_of(found.share(epoch))) for found in (plain, model)),
        Cell(f"{theirs[0]:.2f}" if theirs else DASH),
        Cell(DASH if lost is None else f"{lost:.2f}"),
        Cell(f"{theirs[1]:.2f}" if theirs else DASH),
        Cell(_reason(model.share(epoch), lost, theirs) if theirs and lost is not None else ""),
    )


def _is_alike(one: Trained, other: Trained) -> bool:
    return all(getattr(one.columns, name) == getattr(other.columns, name) for name in ("data_size", "n_layer"))


def _reason(memorized: Share, lost: float, theirs: tuple[float, float]) -> str:
    ours = Pair(Mean(100 * (memorized.share or 0.0), None, 1), theirs[0], 100 / max(1, memorized.rows))
    return reason_of((ours, Pair(Mean(lost, None, 1), theirs[1], ACCURACY_POINTS)), [])


def _published(model: Trained) -> tuple[float, float] | None:
    """Percent memorized and points of accuracy lost that the paper has of a regularizer."""
    table = next((p for p in published() if p.origin == "Table 1" and p.column("artifact") == model.artifact), None)
    if table is None or not _is_of(table, model) or model.regularizer not in table.rows:
        return None
    row, base = table.rows[model.regularizer], table.rows["none"]
    assert row.performance is not None and base.performance is not None
    return row.memorized, base.performance - row.performance


def _footnotes(model: Trained) -> Iterator[str]:
    """What is known to be wrong with the published line of a regularizer."""
    found = [p for p in published() if p.origin == "Table 1" and model.regularizer in p.rows]
    names = dict.fromkeys(name for table in found for name in table.rows[model.regularizer].notes if name != "added-time")
    return (f"{model.regularizer}: {footnotes()[name]}" for name in names)


def _is_of(table: Published, model: Trained) -> bool:
    return all(getattr(model.columns, name) == table.column(name) for name in ("data", "data_size", "n_layer"))


def effects_table(trained: Sequence[Trained]) -> Table:
    """The findings of A.1.3 beside the shipped curves, each at the last epoch that all its models were measured at."""
    plain = [model for model in trained if not model.regularizer]
    lines = [*_copies(plain), *_layers(plain), *_sizes(plain), *_artifacts(plain)]
    notes = (
        "holds, by the 95 % intervals: yes where every step goes with the finding, from end to end where the last is apart from the first "
        "but a step between them cannot be told; no where a step goes against it.",
    )
    return Table("effects", "effects", "What memorization depends on", EFFECTS, tuple(lines), notes)


def _copies(plain: Iterable[Trained]) -> Iterator[tuple[Cell, ...]]:
    for model in plain:
        epoch = max(model.points)
        if classes := model.points[epoch].memorized_by_copies.get(model.artifact):
            shares = [(counted(int(copies), "copy", "copies"), _share(classes[copies])) for copies in sorted(classes, key=int)]
            yield _line("duplicated rows are memorized more", model.name, epoch, shares)


def _layers(plain: Sequence[Trained]) -> Iterator[tuple[Cell, ...]]:
    def key(model: Trained) -> Hashable:
        return model.key, model.columns.data_size

    yield from _by(plain, key, lambda model: model.columns.n_layer or 0, "deeper models memorize more", "{} layers")


def _sizes(plain: Sequence[Trained]) -> Iterator[tuple[Cell, ...]]:
    def key(model: Trained) -> Hashable:
        return model.key, model.columns.n_layer

    yield from _by(plain, key, lambda model: -(model.columns.data_size or 0), "more data is memorized less", "size {}")


def _artifacts(plain: Sequence[Trained]) -> Iterator[tuple[Cell, ...]]:
    def key(model: Trained) -> Hashable:
        return model.columns.data, model.recipe.seed, model.columns.data_size, model.columns.n_layer

    order = ("noise", "backdoor")
    yield from _by(plain, key, lambda model: order.index(model.artifact), "noise is memorized less than backdoors", "{}", order)


def _by(
    models: Sequence[Trained],
    key: Callable[[Trained], Hashable],
    factor: Callable[[Trained], int],
    finding: str,
    label: str,
    names: Sequence[str] = (),
) -> Iterator[tuple[Cell, ...]]:
    """A line for each group of models that differ in one factor; memorization is to grow with it. Of equal models the first counts."""
    for group in dict.fromkeys(map(key, models)):
        by_factor = {factor(model): model for model in reversed(models) if key(model) == group}
        for epoch, chosen in _compared([by_factor[value] for value in sorted(by_factor)]):
            words = [label.format(names[factor(model)] if names else f"{abs(factor(model)):,}") for model in chosen]
            shares = [(word, model.share(epoch)) for word, model in zip(words, chosen, strict=True)]
            yield _line(finding, ", ".join(model.name for model in chosen), epoch, shares)


def _compared(models: list[Trained]) -> Iterator[tuple[int, list[Trained]]]:
    """The last epoch that all models were measured at; then that of all but the one whose curve ends first, if it is a later one."""
    last = 0
    while len(models) > 1:
        epoch = max(set.intersection(*(set(model.points) for model in models)), default=0)
        if epoch > last:
            yield epoch, models
        last, shortest = max(epoch, last), min(models, key=lambda model: max(model.points))
        models = [model for model in models if model is not shortest]


def _line(finding: str, models: str, epoch: int, shares: Sequence[tuple[str, Share]]) -> tuple[Cell, ...]:
    text = "; ".join(f"{word}: {percent_of(share)}" for word, share in shares)
    return tuple(Cell(word) for word in (finding, models, f"{epoch:,}", text, _verdict([share for _, share in shares])))


def _verdict(shares: Sequence[Share]) -> str:
    """Whether memorization grows, as far as the 95 % intervals tell: at every step, from the first to the last only, or not."""
    ends = [share.interval or (0.0, 1.0) for share in shares]
    steps = list(pairwise(ends))
    if any(after[1] < before[0] for before, after in steps):
        return "no"
    if all(after[0] > before[1] for before, after in steps):
        return "yes"
    return "yes, from end to end" if ends[-1][0] > ends[0][1] else "cannot be told"


def _share(column: ShareColumn) -> Share:
    return Share(column["count"], column["rows"])
