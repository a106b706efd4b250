"""The table of a run on which no method has been run: what the trained model has memorized."""

from __future__ import annotations

from tinymem.report.cells import number, percent, performance
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.collect import results_of
from tinymem.results.columns import RATES
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord

NOTE = "no method has been run yet: these are the trained model's numbers, at the end of its training"


def trained_rows(record: RunRecord) -> list[MeasuredRow]:
    """A row per artifact of the trained model before any method; of a recipe without artifacts, of its training rows."""
    return [*results_of([], [record]).trained]


def table_of_trained(record: RunRecord) -> Table:
    """What the trained model has memorized of each artifact, or of its training rows."""
    rows = trained_rows(record)
    metric = next((row.performance_metric for row in rows if row.performance_metric), "accuracy")
    columns = (Column("rows", numeric=False), Column("memorized"), Column(metric), Column("ceiling"))
    return Table("run", "run", record.name, columns, tuple(map(_line, rows)), (f"{record.name}: {NOTE}",))


def _line(row: MeasuredRow) -> tuple[Cell, ...]:
    share = row.share(RATES["all"], "before")
    memorized = Cell(percent(share.share if share else None), value=share.share if share else None, share=share, sources=(row.source,))
    reached = Cell(performance(row, row.performance_before), value=row.performance_before, sources=(row.source,))
    ceiling = percent(row.performance_ceiling) if row.is_share else number(None)
    return Cell(row.artifact, value=row.artifact), memorized, reached, Cell(ceiling, value=row.performance_ceiling)
