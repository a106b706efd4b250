"""Tables of a report are registered by name: ours in this folder, a user's with `--plugin` or an entry point of `tinymem.tables`.

@report_table("mine")
def mine(inputs):
rows = tuple((Cell(row.method), Cell(f"{row.seconds:.1f}", value=row.seconds)) for row in inputs.results.rows if row.seconds)
return [Table("mine", "mine", "Seconds", (Column("method", numeric=False), Column("seconds")), rows)]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tinymem.errors import UserError
from tinymem.registry import Registry, origin_of
from tinymem.report.configurations import ModelGroup, groups_of
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results
from tinymem.runtime.power import Machine


@dataclass(frozen=True)
class TableInputs:
    """Everything that tables are made from.

    Attributes:
        results: rows with their models.
        machine: the machine that the estimate of energy assumes; None: guessed from each row's device.
    """

    results: Results
    machine: Machine | None = None

    @cached_property
    def groups(self) -> list[ModelGroup]:
        """Groups of rows of equal models, with the best configuration of each method."""
        return groups_of(self.results)


Make = Callable[[TableInputs], list[Table]]


@dataclass(frozen=True)
class ReportTable:
    """A registered table, or one of several that one function makes."""

    function: Make
    names: tuple[str, ...]

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return origin_of(self.function)

    def tables(self, inputs: TableInputs) -> list[Table]:
        """The tables that the rows allow.

        Raises:
            UserError: no list of tables, or one of another name than the function is registered for.
        """
        found = self.function(inputs)
        if not isinstance(found, list | tuple) or not all(isinstance(table, Table) for table in found):
            raise UserError(f"expected a list of Table of {self.origin}, got {type(found).__name__}; return [Table(...)], or [] for none")
        for table in found:
            if table.name not in self.names:
                raise UserError(f"expected tables named {', '.join(self.names)} of {self.origin}, got '{table.name}'; name it so")
        return list(found)


TABLES: Registry[ReportTable] = Registry("table", eager=("tinymem.report.tables",), entry_points="tinymem.tables")


def report_table(*names: str) -> Callable[[Make], Make]:
    """Register a function `(inputs) -> tables` under the name, or the names, of the tables that it makes.

    Raises:
        UserError: another table has the name.
    """

    def register(function: Make) -> Make:
        for name in names:
            TABLES.register(name, ReportTable(function, names))
        return function

    return register
