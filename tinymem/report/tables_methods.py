"""The paper's Table 5: what kind of method each one is."""

from __future__ import annotations

from tinymem.report.groups import in_order
from tinymem.report.results import Results
from tinymem.report.table import Cell, Column, Table


def properties_table(results: Results) -> list[Table]:
    """Properties of the registered methods among the rows; loads the methods, and so torch."""
    from tinymem.mitigation.catalogue import COLUMNS, properties_row
    from tinymem.mitigation.frame import UNLEARNERS

    registered = set(UNLEARNERS.names())
    names = [name for name in in_order(row["method"] for row in results.rows) if name in registered]
    rows = tuple((Cell(name), *map(Cell, properties_row(UNLEARNERS.get(name).properties))) for name in names)
    columns = tuple(Column(head, numeric=False) for head in COLUMNS)
    return [Table("5", "table-5", "Table 5. Properties of the methods; the paper's as it has them", columns, rows)] if rows else []
