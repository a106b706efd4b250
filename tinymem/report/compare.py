"""Comparison of our rows with the paper's tables, for models with equal columns only, with the known errors of the published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tinymem.report.cells import DASH
from tinymem.report.configuration import Configuration
from tinymem.report.configurations import ModelGroup, groups_of, in_order
from tinymem.report.means import digits_for, signed
from tinymem.report.published import ColumnValue, Published, PublishedRow, footnotes, published
from tinymem.report.tables.memorization import LABELS, NOTHING, memorized_cell, performance_cell, seconds_of
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.collect import Results

CLOSE = 0.1  # epochs that differ by no more than this share of the published one are taken as equal
WORDS = {"data": "data", "data_size": "sequences a task", "n_layer": "layers", "artifact": "artifact", "model_name": "model"}


def compare_with_published(results: Results) -> tuple[list[Table], list[str]]:
    """A table per model and artifact that the paper has too, and a line about each that it has not."""
    tables, unmatched = [], []
    for group in groups_of(results):
        for artifact in group.artifacts:
            found = matching(group, artifact)
            tables += [_table(group, artifact, other) for other in found]
            unmatched += [] if found else [_why_not(group, artifact)]
    return tables, unmatched


def matching(group: ModelGroup, artifact: str) -> list[Published]:
    """Published models of equal columns: the table's, and if that is of another epoch, the nearest point of a training curve."""
    found = [p for p in published() if not _differences(group, artifact, p)]
    tables = [p for p in found if p.origin.startswith("Table")]
    ours = group.epochs.get(artifact) or 0
    if any(_close(ours, table) for table in tables):
        return tables
    return tables + sorted((p for p in found if p not in tables), key=lambda p: abs((p.epoch or 0) - ours))[:1]


def _differences(group: ModelGroup, artifact: str, other: Published) -> list[str]:
    """The columns in which our and a published model differ, in words."""
    ours = _columns(group, artifact)
    return [
        f"{WORDS[name]} {_plain(theirs)} (ours: {_plain(ours.get(name))})"
        for name, theirs in other.columns
        if not _agree(name, ours.get(name), theirs)
    ]


def _columns(group: ModelGroup, artifact: str) -> dict[str, ColumnValue | None]:
    rows, of = group.baseline[artifact].rows, group.columns
    model_name = rows[0].model_name if rows else None
    return {"data": of.data, "data_size": of.data_size, "n_layer": of.n_layer, "artifact": artifact, "model_name": model_name}


def _agree(name: str, ours: ColumnValue | None, theirs: ColumnValue) -> bool:
    if name == "model_name":  # pythia-2.8b-deduped-step143000 is a pythia-2.8b
        return str(ours).lower().startswith(str(theirs))
    return ours == theirs


def _plain(value: ColumnValue | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value or "none")


def _why_not(group: ModelGroup, artifact: str) -> str:
    """A sentence about the published model that is nearest, and its differences."""
    same = [p for p in published() if p.column("artifact") == artifact]
    if not same:
        return f"{group.name}, {artifact}: not compared; the paper has no such artifact"
    text = group.columns.data == "wiki"
    nearest = min((_differences(group, artifact, p) for p in sorted(same, key=lambda p: text != (p.column("data") == "wiki"))), key=len)
    return f"{group.name}, {artifact}: not compared; the nearest published model has {', '.join(nearest)}"


# ---- the table ----------------------------------------------------------------------------------------------------------------------


def _table(group: ModelGroup, artifact: str, other: Published) -> Table:
    head = "perplexity" if other.metric == "perplexity" else "accuracy %"
    columns = [Column("method", numeric=False)]
    columns += [Column(title, part) for part in ("% memorized", head) for title in ("ours", "paper", "difference")]
    columns += [Column(title, "seconds") for title in ("ours", "paper", "times")]
    marks = {name: i for i, name in enumerate(_notes_in_order(other), 1)}
    lines = [(method, _ours(group, artifact, method), other.rows[method]) for method in in_order(other.rows)]
    rows = tuple(_line(group, artifact, method, ours, theirs, marks) for method, ours, theirs in lines)
    title = f"{group.name[:1].upper()}{group.name[1:]}, {artifact}: ours and {other.origin}"
    texts = tuple(footnotes()[name] for name in marks)
    key = anchor(f"compare-{group.key}-{artifact}-{other.origin.partition(',')[0]}")
    return Table("compare", key, title, tuple(columns), rows, tuple(_notes(group, artifact, other)), texts)


def _ours(group: ModelGroup, artifact: str, method: str) -> Configuration | None:
    if method == "none":
        return group.baseline.get(artifact)
    return group.best_training(artifact, method) or group.best(artifact, method)


def _line(
    group: ModelGroup, artifact: str, method: str, ours: Configuration | None, theirs: PublishedRow, marks: dict[str, int]
) -> tuple[Cell, ...]:
    name = Cell(LABELS.get(method, method), marks=tuple(sorted(marks[note] for note in theirs.notes)))
    ours = ours if ours and ours.rows else None
    memorized = memorized_cell(ours, "after") if ours else NOTHING
    performance = performance_cell(ours, "after") if ours else NOTHING
    seconds = seconds_of(group, artifact, ours)
    pairs = [*_pair(memorized, theirs.memorized), *_pair(performance, theirs.performance)]
    return (name, *pairs, seconds, _published(theirs.seconds, digits_for(theirs.seconds or 0)), _times(seconds, theirs.seconds))


def _pair(ours: Cell, theirs: float | None) -> tuple[Cell, Cell, Cell]:
    if theirs is None or not isinstance(ours.value, float):
        return ours, _published(theirs, 2), NOTHING
    difference = ours.value - theirs
    return ours, _published(theirs, 2), Cell(signed(difference, 2), value=difference, n=ours.n, sources=ours.sources)


def _published(value: float | None, digits: int) -> Cell:
    if value is None:
        return NOTHING
    return Cell("∞" if value == float("inf") else f"{value:,.{digits}f}", value=value)


def _times(ours: Cell, theirs: float | None) -> Cell:
    """Our seconds as a multiple of theirs."""
    if not theirs or not isinstance(ours.value, float):
        return NOTHING
    ratio = ours.value / theirs
    return Cell(f"{ratio:.2g}" if abs(ratio) < 100 else f"{ratio:,.0f}", value=ratio, sources=ours.sources)


def _notes_in_order(other: Published) -> Iterable[str]:
    return dict.fromkeys(note for method in in_order(other.rows) for note in other.rows[method].notes)


def _notes(group: ModelGroup, artifact: str, other: Published) -> Iterator[str]:
    ours = group.epochs.get(artifact)
    if ours is not None and other.epoch is not None and not _close(ours, other):
        yield f"Ours after epoch {ours:,}, theirs after {other.epoch:,}: not like with like."
    for name in other.notes:
        yield f"All published rows: {footnotes()[name]}"
    if group.protocol == "paper" and other.column("model_name") is None:
        yield (
            "Ours under protocol `paper`: the definitions done right, and half of the memorized noise rows kept from each method. "
            "Protocol `reference` measures what the published code measured."
        )
    seeds = sorted({row.seed for row in group.baseline[artifact].rows}, key=str)
    devices = dict.fromkeys(str(s.rows[0].device) for s in group.settings.get(artifact, []) if s.rows)
    yield f"Ours: best runs by A.3.5; seeds {', '.join(map(str, seeds))}; seconds on {', '.join(devices) or DASH}. Theirs: seeds 0, 1, 3."
    yield from group.repeated
    if extra := sorted(set(group.methods()) - set(other.rows)):
        yield f"Not in this table of the paper: {', '.join(extra)}."


def _close(epoch: int, other: Published) -> bool:
    return other.epoch is not None and abs(epoch - other.epoch) <= CLOSE * other.epoch
