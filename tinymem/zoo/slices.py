"""Models of other depths, sizes and epochs of training (the paper's section 6.1): each method's best run on them, from stored rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tinymem.report.cells import DASH, number, percent_of
from tinymem.report.configuration import memorized, row_score
from tinymem.report.configurations import ARTIFACTS, in_order
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.row import MeasuredRow
from tinymem.zoo.reproduction import comparable, cost_of, is_of_older_precision
from tinymem.zoo.stored import merged

Slice = tuple[str | None, str, int | None, int | None, int | None, int | None]
"""What tells the models of the table apart: data, artifact, blocks, size, seed and epoch."""
HEADS = ("data", "artifact", "layers", "size", "epoch")
NOTES = (
    "% memorized after the edit / what it cost: points of accuracy, of text % of perplexity. Of each method the best run by M - P, "
    "without a limit of time. Of backdoors the held-out triggered rows count, of rows in several copies those of the most.",
)


def slice_of(row: MeasuredRow) -> Slice:
    """The slice that a row belongs to."""
    return row.data, row.artifact, row.n_layer, row.data_size, row.seed, row.epoch


def is_of_slice(row: MeasuredRow) -> bool:
    """Whether a row says of its model what tells slices apart; the size is of math alone."""
    return None not in (row.data, row.n_layer, row.epoch)


def with_newer(known: Sequence[MeasuredRow], new: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Stored rows of slices with the new ones. Where a slice's model was trained again, its rows replace all of the earlier model's."""
    weights = {slice_of(row): row.weights for row in new if row.is_ok}
    kept = [row for row in known if weights.get(slice_of(row), row.weights) == row.weights]
    return merged(kept, new)


def slices_tables(rows: Iterable[MeasuredRow]) -> list[Table]:
    """A line for each slice, a column for each method; none without rows."""
    by_slice: dict[Slice, dict[str, list[MeasuredRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.is_ok and is_of_slice(row):
            by_slice[slice_of(row)][row.method].append(row)
    if not by_slice:
        return []
    methods = in_order({method for found in by_slice.values() for method in found})
    heads = [Column(title, numeric=False) for title in (*HEADS, "memorized before")]
    columns = (*heads, Column("performance before"), *map(Column, methods))
    lines = [_line(one, by_slice[one], methods) for one in sorted(by_slice, key=_order)]
    devices = sorted({str(row.device) for found in by_slice.values() for same in found.values() for row in same})
    notes = (*NOTES, f"One seed each. Measured on {', '.join(devices)}.", *_older(by_slice))
    return [Table("slices", "slices", "Other depths, sizes and epochs (section 6.1)", columns, tuple(lines), notes)]


def _order(one: Slice) -> tuple[str, int, int, int, int]:
    data, artifact, layers, size, _, epoch = one
    return data or "", ARTIFACTS.index(artifact) if artifact in ARTIFACTS else len(ARTIFACTS), size or 0, layers or 0, epoch or 0


def _line(one: Slice, found: dict[str, list[MeasuredRow]], methods: Sequence[str]) -> tuple[Cell, ...]:
    data, artifact, layers, size, _, epoch = one
    first = comparable(next(row for same in found.values() for row in same))
    texts = (data, artifact, layers, None if size is None else f"{size:,}", epoch, percent_of(memorized(first, "before")[1]))
    before = first.performance_before
    performance = number(before if before is None or not first.is_share else 100 * before, 2)
    best = [min(found[method], key=row_score) if method in found else None for method in methods]
    return (*(Cell(DASH if text is None else str(text)) for text in texts), Cell(performance, value=before), *map(_best, best))


def _best(row: MeasuredRow | None) -> Cell:
    """The best run of a method in one cell: % left / lost."""
    if row is None:
        return Cell(DASH)
    left = memorized(comparable(row), "after")[0]
    return Cell(f"{number(None if left is None else 100 * left)} / {number(cost_of(row), 2)}", value=row_score(row), sources=(row.source,))


def _older(by_slice: dict[Slice, dict[str, list[MeasuredRow]]]) -> list[str]:
    """Which fine-tunings are from before those on GPUs took training's precision."""
    older = [one for one, found in by_slice.items() if any(is_of_older_precision(row) for same in found.values() for row in same)]
    names = dict.fromkeys(f"{artifact} with {layers} layers" for _, artifact, layers, *_ in sorted(older, key=_order))
    return [f"Older rows, whose fine-tunings computed in fp32: {', '.join(names)}."] if names else []
