"""Whether recall of injected sequences predicts what an edit leaves and costs: Spearman's rho with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinymem.localization.agreement import Agreement
from tinymem.report.cells import DASH
from tinymem.report.link import OUTCOMES, Link, Linked, Pair, link_of, linked
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table, anchor

KEY, TITLE = "link", "Does recall predict unlearning?"
HEADS = {"left": "left of forget rows", "holdout": "left of the holdout", "cost": "cost"}
NOTE = (
    "Spearman's rho of a method's recall of injected sequences (as many named as hold one) with what its edit at the same ratio leaves "
    "memorized, and with the % by which performance is worse. Within: mean over models and ratios of the rho of the methods there; "
    "pooled: all models and ratios together, so that a larger ratio alone moves both. Recall that predicts forgetting has a rho near -1 "
    "with what is left. Edits of several seeds are averaged. 95 % bootstrap intervals over methods, each drawn with its values on all "
    "models and at all ratios; resamples of methods that are all alike are left out."
)


@report_table("link")
def table_of_link(inputs: TableInputs) -> list[Table]:
    """The link between recall and mitigation, where the folders hold INJ and edits of the same models: a table for each way of INJ."""
    tables = [(one, _table(one)) for one in linked(inputs.results)]
    return [table for one, table in tables if table.rows or one.left_out]


def _table(found: Linked) -> Table:
    lines = [line for unit in ("neuron", "weight") for line in _lines([p for p in found.pairs if p.unit == unit], unit)]
    columns = (
        Column("unit", numeric=False), Column("ratio", numeric=False), Column("methods"), Column("models"),
        *(Column(kind, HEADS[name]) for name in OUTCOMES for kind in ("within", "pooled")),
    )  # fmt: skip
    key, title = (anchor(f"{KEY}-{found.words}"), f"{TITLE} {found.words}") if found.words else (KEY, TITLE)
    return Table(KEY, key, title, columns, tuple(lines), (NOTE, *found.notes))


def _lines(pairs: Sequence[Pair], unit: str) -> list[tuple[Cell, ...]]:
    ratios = sorted({p.ratio for p in pairs})
    groups = [(f"{100 * ratio:g} %", [p for p in pairs if p.ratio == ratio]) for ratio in ratios]
    groups += [("all", list(pairs))] if len(ratios) > 1 else []
    found = [_line(unit, label, those) for label, those in groups]
    return [line for line in found if line]


def _line(unit: str, label: str, pairs: Sequence[Pair]) -> tuple[Cell, ...] | None:
    links = {name: link_of(pairs, name) for name in OUTCOMES}
    most = max((link.methods for link in links.values() if link), default=0)
    if not most:
        return None
    models, sources = len({p.model for p in pairs}), tuple(dict.fromkeys(s for p in pairs for s in p.sources))
    cells = [cell for link in links.values() for cell in _cells(link)]
    return (
        Cell(unit, value=unit, sources=sources),
        Cell(label, value=label),
        Cell(str(most), value=most),
        Cell(str(models), value=models),
        *cells,
    )


def _cells(link: Link | None) -> list[Cell]:
    return [Cell(DASH), Cell(DASH)] if link is None else [agreement_cell(link.within), agreement_cell(link.pooled)]


def agreement_cell(found: Agreement) -> Cell:
    """Rho with its interval in small print; a dash where one side is constant."""
    if math.isnan(found.rho):
        return Cell(DASH)
    ends = "" if math.isnan(found.low) else f"{found.low:+.2f} to {found.high:+.2f}"
    return Cell(f"{found.rho:+.2f}", small=ends, value=found.rho)
