"""All tables of a report, by name.

    variants     the trained models of several runs, with the keys in which their recipes differ
    1, 2, 3      best run of every method: math, language, and own rows on any model
    best         the chosen configurations and their scores
    pareto       configurations that no other one beats
    metrics      other metrics of each method's best run
    returns      memorized rows that return (rows made with `--robustness`)
    inj, del     where sequences are kept: recall of injected ones, and what dropping located neurons costs
    findings     the published findings about localization: rankings, ratios, scopes
    tuning       options of scorers that were tried on development rows
    link         whether recall of injected sequences predicts what edits leave and cost
    layers       in which layers: weights; layers-events, -gradients, -centers, -agreement, -control: what follows from them
    classes      layers that memorize flipped labels, by task; classes-depth: whether they are deeper where tasks generalize
    5            properties of the methods
    6, 7, 8, 9   cost: machines, by phase, per run, against large models
    projection   the paper's whole grid at our seconds

`tables_of(load_results(folders))` makes them; `render.html.to_html` shows one on the page, and `page.document.write_page` writes a page.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tinymem.errors import UserError, did_you_mean
from tinymem.report.tables.registry import TABLES, TableInputs
from tinymem.report.tables.table import Table
from tinymem.report.threads import mixed_threads
from tinymem.results.collect import Results
from tinymem.runtime.power import Machine

COST = ("6", "7", "8", "9", "projection")
"""Tables of cost and energy, made only where they are asked for."""
CLASSES = ("classes", "classes-depth")
LAYERS = ("layers", "layers-events", "layers-gradients", "layers-centers", "layers-agreement", "layers-control")
LOCALIZATION = ("inj", "del", "findings", "tuning", "link", *LAYERS, *CLASSES)
ORDER = ("variants", "1", "2", "3", "best", "pareto", "metrics", "returns", *LOCALIZATION, "5", *COST)
"""The order of a report; tables that are not named here follow by name."""


def tables_of(results: Results, names: Collection[str] | None = None, *, machine: Machine | None = None) -> list[Table]:
    """The tables that the rows allow, in the order of `ORDER`.

    Args:
        results: rows with their models.
        names: which; by default all, those of cost only with a machine.
        machine: our machine as equation 4 models it; guessed by default.

    Raises:
        UserError: an unknown name.
    """
    known = TABLES.names()
    wanted = {name for name in known if name not in COST or machine} if names is None else set(names)
    if unknown := sorted(wanted - set(known)):
        shown = [*ORDER, *(name for name in known if name not in ORDER)]
        raise UserError(f"expected tables of {', '.join(shown)}, got '{unknown[0]}'; {did_you_mean(unknown[0], shown)}")
    inputs = TableInputs(results, machine)
    makers = dict.fromkeys(registered for registered in TABLES.in_order(ORDER) if wanted & set(registered.names))
    found = [table for maker in makers for table in maker.tables(inputs) if table.name in wanted and table.rows]
    rows = results.by_source
    return [replace(table, notes=(*table.notes, *mixed_threads(rows[s] for s in table.sources if s in rows))) for table in found]
