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
from tinymem.zoo.reproduction import Line, Reproduction, lost_points, reproductions

TITLE = "Table 1"
COMPARED = (
    *(Column(title, numeric=False) for title in ("method", "options")),
    *(Column(title, "% memorized") for title in ("ours", "paper")),
    *(Column(title, "points of accuracy lost") for title in ("ours", "paper")),
    *(Column(title, "seconds") for title in ("ours", "paper")),
    Column("reason for the difference", numeric=False),
)
FULL = (
    *(Column(title, numeric=False) for title in ("method", "options", "chosen")),
    *(Column(title) for title in ("% memorized", "% of holdout", "accuracy %", "points lost", "seconds")),
)
OPTIMIZER_STATES = {
    True: "went on with AdamW's state of training",
    False: "started with a fresh AdamW state",
    None: "do not say whose AdamW state they had",
}
HEAD = """# Table 1, reproduced

Written by `tinymem reproduce table1` from the rows in `docs/table1.parquet`, 4 layers, multiplicative. Those under protocol `paper` are of
the checkpoints in `zoo/` (`recipes/paper/table1.yaml`); those under protocol `reference` of the same, measured as the published code
measured (`recipes/paper/table1-reference.yaml`), or of models that were trained under it, on the published code's rows.
`tinymem reproduce table1 --run` does both sweeps; `--from DIR` takes the rows of any.

A method's run is chosen by M - P, the percent of memorization removed less the percent of accuracy lost, among those that take no longer
than `finetune-extra`; the rule as printed, M + P, rewards lost accuracy. Ours are means over seeds ± standard deviation under protocol
`paper`; points of accuracy are those that the edit cost, since the published accuracy counts padding. A difference needs a reason where it
exceeds the standard deviation and one row or 0.1 points. A reason is a run, or another choice among the same runs, whose numbers agree with
both published ones; chance has the p-value of a t-test; the rest is unexplained.
"""


def reproduction_page(rows: Sequence[MeasuredRow]) -> str:
    """The page, with a newline at its end; what the rows do not have is left out."""
    return "\n".join([HEAD, *(part for found in reproductions(rows, TITLE) for part in _half(found))]).rstrip("\n") + "\n"


def _half(found: Reproduction) -> Iterator[str]:
    lines = found.lines()
    yield f"## {found.artifact.capitalize()}\n"
    yield "".join(f"{sentence}\n" for sentence in _about(found, lines))
    title = f"Ours and the paper's, {found.artifact}"
    notes = tuple(f"{LABELS.get(line.method, line.method)}: {footnotes()[name]}" for line in lines for name in line.published.notes)
    yield to_markdown([Table("compare", f"reproduction-{found.artifact}", title, COMPARED, tuple(map(_compared, lines)), notes)])
    yield to_markdown([_full(found)])
    returns = table_of_returns(found.group)
    own = [line for line in returns.rows if line[0].text == found.artifact]
    if own:
        yield to_markdown(
            [Table(returns.name, returns.key, f"Whether it comes back, {found.artifact}", returns.columns, tuple(own), returns.notes)]
        )


def _about(found: Reproduction, lines: Sequence[Line]) -> Iterator[str]:
    rows = [row for line in lines for row in line.ours.rows]
    models = ", ".join(sorted({str(row.run) for row in rows}))
    devices = ", ".join(sorted({str(row.device) for row in rows}))
    yield f"Models: {models}. Seconds on {devices or DASH}."
    limit = found.group.seconds_limit(found.artifact)
    yield f"Time limit: {limit:.2f} s, that of `finetune-extra`." if limit else "No time limit: `finetune-extra` has no rows."
    states = {row.optimizer_state for row in rows if row.method in FINETUNINGS}
    if states:
        words = {
            True: "went on with AdamW's state of training",
            False: "started with a fresh AdamW state",
            None: "do not say whose AdamW state",
        }
        yield f"Fine-tunings {' and '.join(sorted(words[state] for state in states))}."
    if found.artifact == "backdoor":
        yield "Memorized: of the held-out triggered rows that the trained model completes with the payload, hence 100 % before."


def _compared(line: Line) -> tuple[Cell, ...]:
    memorized, performance = line.pairs
    seconds = line.published.seconds
    return (
        Cell(LABELS.get(line.method, line.method)),
        Cell(line.ours.options),
        memorized_cell(line.ours, "after"),
        Cell(f"{memorized.published:.2f}", value=memorized.published),
        mean_cell(performance.ours, 2, line.ours.sources),
        Cell(f"{performance.published:.2f}", value=performance.published),
        seconds_cell(line.ours.seconds, line.ours.sources) if line.method != "none" else Cell(DASH),
        Cell(DASH) if seconds is None else Cell(f"{seconds:,.{digits_for(seconds)}f}", value=seconds),
        Cell(line.reason),
    )


def _full(found: Reproduction) -> Table:
    """Every method, in the table or not: the run within the time limit, and a better one without it."""
    rows = []
    for method in found.group.methods():
        limited, free = found.best(method), found.best(method, limited=False)
        if limited is None or free is None:
            continue
        rows.append(_chosen(limited, "" if free is limited else "within the limit"))
        if free is not limited:
            rows.append(_chosen(free, "without it"))
    return Table("full", f"all-{found.artifact}", f"Every method of ours, {found.artifact}", FULL, tuple(rows))


def _chosen(setting: Configuration, words: str) -> tuple[Cell, ...]:
    holdout = mean_of(_holdout(row) for row in setting.rows)
    return (
        Cell(setting.method),
        Cell(setting.options),
        Cell(words),
        memorized_cell(setting, "after"),
        mean_cell(holdout, 2, setting.sources),
        performance_cell(setting, "after"),
        mean_cell(mean_of(lost_points(row) for row in setting.rows), 2, setting.sources),
        seconds_cell(setting.seconds, setting.sources),
    )


def _holdout(row: MeasuredRow) -> float | None:
    share = row.share(RATES["holdout"], "after")
    return 100 * share.share if share and share.rows and share.share is not None else None
