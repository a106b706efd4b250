"""The paper's Table 5: properties of the methods."""

from __future__ import annotations

from tinymem.report.configurations import in_order
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table


@report_table("5")
def properties_table(inputs: TableInputs) -> list[Table]:
    """Properties of the registered methods among the rows; loads the methods, and so torch."""
    from tinymem.mitigation.method import UNLEARNERS
    from tinymem.mitigation.method_pages import COLUMNS, properties_row

    registered = set(UNLEARNERS.names())
    names = [name for name in in_order(row.method for row in inputs.results.rows) if name in registered]
    rows = tuple((Cell(name), *map(Cell, properties_row(UNLEARNERS.get(name).properties))) for name in names)
    columns = tuple(Column(head, numeric=False) for head in COLUMNS)
    return [Table("5", "table-5", "Table 5. Properties of the methods; the paper's as it has them", columns, rows)] if rows else []
