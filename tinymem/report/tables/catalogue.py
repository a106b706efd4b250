"""All tables of a report, by name.

    1, 2, 3      best run of every method: math, language, and own rows on any model
    best         the chosen configurations and their scores
    pareto       configurations that no other one beats
    metrics      other metrics of each method's best run
    returns      whether what it removed comes back (rows made with `--robustness`)
    5            properties of the methods
    6, 7, 8, 9   cost: machines, by phase, per run, against large models
    projection   the paper's whole grid at our seconds

The page asks for them with `tables_of(load_results(folders))`, and shows each with `render_html.to_html`. In turn the command line asks the
page for a file with `write_page(results, tables, out)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from tinymem.errors import UserError, did_you_mean
from tinymem.report.configurations import ModelGroup, groups_of
from tinymem.report.tables.cost import cost_tables
from tinymem.report.tables.memorization import table_of_best, table_of_fronts, table_of_methods
from tinymem.report.tables.methods import properties_table
from tinymem.report.tables.metrics import table_of_metrics, table_of_returns
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results
from tinymem.runtime.power import Machine

COST = ("6", "7", "8", "9", "projection")
NAMES = ("1", "2", "3", "best", "pareto", "metrics", "returns", "5", *COST)
PER_GROUP: dict[str, Callable[[ModelGroup], Table]] = {
    "best": table_of_best,
    "pareto": table_of_fronts,
    "metrics": table_of_metrics,
    "returns": table_of_returns,
}


def tables_of(results: Results, names: Collection[str] | None = None, *, machine: Machine | None = None) -> list[Table]:
    """The tables that the rows allow, in the order of `NAMES`.

    Args:
        results: rows with their models.
        names: which; all by default.
        machine: what equation 4 takes our machine to be; guessed by default.

    Raises:
        UserError: an unknown name.
    """
    wanted = set(NAMES if names is None else names)
    if unknown := sorted(wanted - set(NAMES)):
        raise UserError(f"expected tables of {', '.join(NAMES)}, got '{unknown[0]}'; {did_you_mean(unknown[0], NAMES)}")
    groups = groups_of(results) if wanted & {"1", "2", "3", *PER_GROUP} else []
    found = [table_of_methods(group, number) for number in ("1", "2", "3") for group in groups if _number(group) == number]
    found += [make(group) for name, make in PER_GROUP.items() if name in wanted for group in groups]
    found += properties_table(results) if "5" in wanted else []
    found += cost_tables(results, machine) if wanted & set(COST) else []
    return [table for table in found if table.name in wanted and table.rows]


def _number(group: ModelGroup) -> str:
    """Which of the paper's tables has the form for such models."""
    data = group.columns.data
    return "2" if data == "wiki" else "1" if data in ("additive", "multiplicative") else "3"
