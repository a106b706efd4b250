"""docs/reproduction.md: the published tables beside our stored rows, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinymem.recipe.paper import FINETUNINGS
from tinymem.report.cells import DASH
from tinymem.report.configuration import Configuration
from tinymem.report.means import digits_for, mean_of
from tinymem.report.published import footnotes
from tinymem.report.render.text import to_markdown
from tinymem.report.tables.memorization import LABELS, mean_cell, memorized_cell, performance_cell, seconds_cell
from tinymem.report.tables.metrics import table_of_returns
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.columns import RATES
from tinymem.results.row import MeasuredRow
from tinymem.zoo.curves import Trained, effects_table, regularizer_tables
from tinymem.zoo.reproduction import Line, Reproduction, cost_of, reproductions
from tinymem.zoo.slices import slices_tables

TABLES = ("Table 1", "Table 2")
COSTS = {"accuracy": "points of accuracy lost", "perplexity": "% of perplexity added"}
OPTIMIZER_STATES = {
    True: "went on with AdamW's state of training",
    False: "started with a fresh AdamW state",
    None: "do not say whose AdamW state they had",
}
HEAD = """# The paper's tables, reproduced

Written by `tinymem reproduce` from stored rows. Table 1, 4 layers, multiplicative, from `docs/table1.parquet`: those under protocol `paper`
are of the checkpoints in `zoo/` (`recipes/paper/table1.yaml`); those under protocol `reference` of the same, measured as the published code
measured (`recipes/paper/table1-reference.yaml`), or of models that were trained under it, on the published code's rows. Table 2 from
`docs/table2.parquet`, of the language models in `zoo/` (`recipes/paper/table2.yaml` searches the grids, `table2-reference.yaml` measures
and edits as the published code did), one seed, with the shipped sample of their rows to retain: 8,000 clean rows, on which `finetune-extra`
is shorter, and with it the time limit, than on the whole text. Of its backdoor the chosen runs were made again for the tests of robustness,
but for those of Zero, SimNPO and BalancedSubnet's one epoch: the seconds of these three, and of all runs that were not chosen, are of a
card that many runs shared, and up to ten times as long as alone.
`tinymem reproduce table1 --run` and `table2 --run` do the sweeps; `--from DIR` takes the rows of any, `--add DIR` adds rows to the stored
ones, in place of those of the same runs. Rows of other depths, sizes and epochs are in `docs/slices.parquet`: of models that
`recipes/paper/math-backdoor.yaml` trains, searched by `recipes/paper/slices.yaml`, and added by `tinymem reproduce slices --add DIR`. Of
math all 17 runs of that grid are stored for each, but of size 10,000 at epochs 50 and 200 the 8 that a search by halving left. 4 layers
with 3,000 rows at epoch 500 are Table 1's.

A method's run is chosen by M - P, the percent of memorization removed less the percent of accuracy lost (of text M + P, with perplexity),
among those that take no longer than `finetune-extra`, or among all where none does, and again without that limit of time where another run
is then better. Our fine-tunings are faster against the other methods than the paper's, so that the limit leaves fewer of their runs. The
rule as printed, M + P, rewards lost accuracy. Ours are means over seeds ± standard deviation under protocol `paper`; points of accuracy
are those that the edit cost, since the published accuracy counts padding. Of text the percent of perplexity that an edit added is compared
and no perplexity, since text and tokenizer differ from the paper's. A difference needs a reason where it exceeds the standard deviation
and one row, 0.1 points or 1 % of perplexity. A reason is a run, or another choice among the same runs, whose numbers agree with both
published ones. Where those agree with the model without an edit, and the least ratio of the published grid rounds to nothing, the line says
`perhaps no edit`: such runs could be chosen as best, though the published numbers are near those of their trained model and not the same
(perplexity is of random chunks of text there). Chance has the p-value of a t-test; the rest is unexplained: of Table 2 most, as of text
there is one model of each kind.
"""


def reproduction_page(rows: Sequence[MeasuredRow], trained: Sequence[Trained] = (), slices: Sequence[MeasuredRow] = ()) -> str:
    """The page, with a newline at its end; what the rows do not have is left out.

    Args:
        rows: of any tables.
        trained: shipped training curves: of models with regularizers, and for the effects of size, depth and copies.
        slices: rows of models of other depths, sizes and epochs.
    """
    halves = {title: reproductions(rows, title) for title in TABLES}
    none = [f"Of {title} no rows are stored yet.\n" for title, found in halves.items() if not found]
    parts = [*none, *(part for title, found in halves.items() for half in found for part in _half(title, half))]
    tables = [
        to_markdown([table]) for table in (*slices_tables(slices), *regularizer_tables(trained), effects_table(trained)) if table.rows
    ]
    return "\n".join([HEAD, *parts, *tables]).rstrip("\n") + "\n"


def _half(origin: str, found: Reproduction) -> Iterator[str]:
    lines = found.lines()
    name = f"{origin}, {found.artifact}"
    yield f"## {name}\n"
    yield "".join(f"{sentence}\n" for sentence in _about(found, lines))
    title = f"Ours and the paper's: {name}"
    notes = dict.fromkeys(f"{LABELS.get(line.method, line.method)}: {footnotes()[name]}" for line in lines for name in line.published.notes)
    yield to_markdown([Table("compare", _key("reproduction", found), title, _heads(found), tuple(map(_compared, lines)), tuple(notes))])
    yield to_markdown([_full(found, name)])
    returns = table_of_returns(found.group, lambda artifact, method: found.settings(method) if artifact == found.artifact else [])
    own = tuple(line for line in returns.rows if line[0].text == found.artifact)
    if own:
        scored = ("Scored, before and after all of it: the held-out rows, as above.",) if found.artifact == "backdoor" else ()
        title = f"Whether it comes back: {name}"
        yield to_markdown([Table(returns.name, returns.key, title, returns.columns, own, (*returns.notes, *scored))])


def _about(found: Reproduction, lines: Sequence[Line]) -> Iterator[str]:
    rows = [row for line in lines for row in line.ours.rows]
    models = ", ".join(sorted({str(row.run) for row in rows}))
    devices = ", ".join(sorted({str(row.device) for row in rows}))
    yield f"Models: {models}. Seconds on {devices or DASH}."
    yield from _days([setting for method in found.group.methods() for setting in found.settings(method)])
    limit = found.group.seconds_limit(found.artifact)
    theirs = found.table.rows["finetune-extra"].seconds
    paper = f" (the paper's: {theirs:.1f})" if theirs else ""
    yield f"Time limit: {limit:.2f} s, that of `finetune-extra`{paper}." if limit else "No time limit: `finetune-extra` has no rows."
    states = {row.optimizer_state for row in rows if row.method in FINETUNINGS}
    if states:
        yield f"Fine-tunings {' and '.join(sorted(OPTIMIZER_STATES[state] for state in states))}."
        yield from _precision(found, rows)
    if found.artifact == "backdoor":
        yield "Memorized: of the held-out triggered rows that the trained model completes with the payload, hence 100 % before."


def _days(settings: Sequence[Configuration]) -> Iterator[str]:
    """On which day the chosen runs were made, and which ones before it."""
    days = {row.finished[:10] for setting in settings for row in setting.rows if row.finished}
    if not days:
        return
    earlier = {day: dict.fromkeys(s.method for s in settings for row in s.rows if (row.finished or "").startswith(day)) for day in days}
    last = max(days)
    older = "; ".join(f"{', '.join(earlier[day])} on {day}" for day in sorted(days - {last}))
    yield f"The chosen runs are of {last}{f', but for older ones: {older}' if older else ''}."


def _precision(found: Reproduction, rows: Sequence[MeasuredRow]) -> Iterator[str]:
    """What fine-tunings on a GPU computed in: rows that do not say it are from before they took training's bf16."""
    reference = found.reference.of_method(found.artifact, FINETUNINGS[0]) if found.reference else []
    for words, some in (("They", rows), ("Those under protocol `reference`", [row for setting in reference for row in setting.rows])):
        tuned = [row for row in some if row.method in FINETUNINGS and row.device_type == "cuda"]
        if tuned:
            kinds = sorted({row.computed_in or "fp32, as fine-tunings on GPUs were before they took training's precision" for row in tuned})
            yield f"{words} computed in {' or '.join(kinds)}."


def _key(start: str, found: Reproduction) -> str:
    """The key of a table of this half, as in `reproduction-table1-noise`."""
    return f"{start}-{found.table.origin.lower().replace(' ', '')}-{found.artifact}"


def _heads(found: Reproduction) -> tuple[Column, ...]:
    return (
        *(Column(title, numeric=False) for title in ("method", "options", "chosen")),
        *(Column(title, "% memorized") for title in ("ours", "paper")),
        *(Column(title, COSTS[found.table.metric]) for title in ("ours", "paper")),
        *(Column(title, "seconds") for title in ("ours", "paper")),
        Column("reason for the difference", numeric=False),
    )


def _compared(line: Line) -> tuple[Cell, ...]:
    memorized, *costs = line.pairs
    seconds = line.published.seconds
    performance = (
        (mean_cell(costs[0].ours, 2, line.ours.sources), Cell(f"{costs[0].published:.2f}", value=costs[0].published)) if costs else ()
    )
    return (
        Cell(LABELS.get(line.method, line.method)),
        Cell(line.ours.options),
        Cell(line.chosen),
        memorized_cell(line.ours, "after"),
        Cell(f"{memorized.published:.2f}", value=memorized.published),
        *(performance or (Cell(DASH), Cell(DASH))),
        seconds_cell(line.ours.seconds, line.ours.sources) if line.method != "none" else Cell(DASH),
        Cell(DASH) if seconds is None else Cell(f"{seconds:,.{digits_for(seconds)}f}", value=seconds),
        Cell(line.reason),
    )


def _full(found: Reproduction, name: str) -> Table:
    """Every method, in the table or not: the run within the time limit, and a better one without it."""
    rows = [_chosen(setting, words) for method in found.group.methods() for words, setting in found.choices(method)]
    unit, cost = ("accuracy %", "points lost") if found.table.metric == "accuracy" else ("perplexity", "% added")
    heads = [Column(title, numeric=False) for title in ("method", "options", "chosen")]
    heads += [Column(title) for title in ("% memorized", "% of holdout", unit, cost, "seconds")]
    return Table("full", _key("all", found), f"Every method of ours: {name}", tuple(heads), tuple(rows))


def _chosen(setting: Configuration, words: str) -> tuple[Cell, ...]:
    holdout = mean_of(_holdout(row) for row in setting.rows)
    return (
        Cell(setting.method),
        Cell(setting.options),
        Cell(words),
        memorized_cell(setting, "after"),
        mean_cell(holdout, 2, setting.sources),
        performance_cell(setting, "after"),
        mean_cell(mean_of(cost_of(row) for row in setting.rows), 2, setting.sources),
        seconds_cell(setting.seconds, setting.sources),
    )


def _holdout(row: MeasuredRow) -> float | None:
    share = row.share(RATES["holdout"], "after")
    return 100 * share.share if share and share.rows and share.share is not None else None
