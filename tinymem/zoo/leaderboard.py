"""The leaderboard: each method's best run on every shipped checkpoint, from stored rows, as Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tinymem.recipe.paper import FINETUNINGS
from tinymem.report.cells import DASH, percent_of, settings, significant
from tinymem.report.configuration import Configuration
from tinymem.report.means import signed
from tinymem.report.render.text import to_markdown
from tinymem.report.selection import Candidate, lost, score
from tinymem.report.tables.memorization import memorized_cell, performance_cell, seconds_cell
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.report.tolerance import tolerance_of
from tinymem.results.columns import RATES
from tinymem.results.row import MeasuredRow
from tinymem.zoo.catalogue import Entry
from tinymem.zoo.reproduction import comparable, is_of_older_precision

HASH_LENGTH = 12
COMPARED = ("memorized_after", "holdout_memorized_after", "performance_after", "perplexity_after")
"""Columns that a check compares; what a machine decides, such as seconds, is not among them."""
HEAD = """# Leaderboard

Written by `tinymem zoo leaderboard` from the rows of the paper's tables in `docs/` and those in `docs/leaderboard.parquet`: every method on
the checkpoints of `zoo/` that have rows, under protocol `paper`. A method's run on a checkpoint is the one of its stored grid with the
lowest score M - P, the percent of memorization changed less the percent of accuracy changed (of text M + P, with perplexity): -100 is a
perfect edit, 0 one that does nothing, of text 100. There is no limit of time. Of a backdoor, memorized rows are the held-out ones, as in
[the tables](reproduction.md), which also say which seconds on `lang-wiki-backdoor-4l-s0` are of a card that many runs shared.

- `tinymem zoo leaderboard --submit plugin.py` runs a method of your own over its grid on the same checkpoints (`docs/extending.md` shows
  one), adds its rows, named by the hash of the file, and writes this page anew.
- `tinymem zoo leaderboard --check` runs a sample of the lines again, of those that took no longer than a second. {tolerance}
"""


@dataclass(frozen=True)
class Standing:
    """A method's best run on a checkpoint, with its score; lower is better."""

    name: str
    setting: Configuration
    candidate: Candidate
    score: float

    @property
    def row(self) -> MeasuredRow:
        """The run's row."""
        return self.setting.rows[0]


def standings(rows: Iterable[MeasuredRow], weights: Mapping[str, str]) -> dict[str, list[Standing]]:
    """The best run of every method on each checkpoint that has rows, the best method first.

    Args:
        rows: of any models; those under protocol `paper` with the weights of a checkpoint count.
        weights: the id of each checkpoint's weights, by its name.
    """
    names = {identity: name for name, identity in weights.items()}
    rows = (row for row in rows if is_of_board(row, names))
    best: dict[str, dict[tuple[str, str], Standing]] = defaultdict(dict)
    for row in map(comparable, rows):
        if not (found := _standing(row)):
            continue
        checkpoint = names[str(row.weights)]
        key = found.name, row.artifact
        if key not in best[checkpoint] or _rank(found) < _rank(best[checkpoint][key]):
            best[checkpoint][key] = found
    return {name: sorted(_named(best[name].values()), key=_rank) for name in weights if name in best}


def is_of_board(row: MeasuredRow, weights: Container[str]) -> bool:
    """Whether a row can be a line: a method's under protocol `paper`, on a checkpoint with one of these ids of weights."""
    return (row.weights or "") in weights and row.protocol == "paper" and row.method != "none"


def _named(lines: Collection[Standing]) -> list[Standing]:
    """The lines of a checkpoint; where it has several artifacts, each with its own in the name."""
    several = len({line.row.artifact for line in lines}) > 1
    return [replace(line, name=f"{line.name}, {line.row.artifact}") if several else line for line in lines]


def _standing(row: MeasuredRow) -> Standing | None:
    name = f"{row.method} ({row.plugin[:HASH_LENGTH]})" if row.plugin else row.method
    setting = Configuration(name, settings(row), (row,))
    candidate = setting.candidate() if row.is_ok else None
    return Standing(name, setting, candidate, score(candidate)) if candidate else None


def _rank(found: Standing) -> tuple[float, float, str, str]:
    return found.score, found.candidate.memorized_after, found.name, found.setting.options


def leaderboard_page(rows: Sequence[MeasuredRow], entries: Sequence[Entry], weights: Mapping[str, str]) -> str:
    """The page, with a newline at its end.

    Args:
        rows: all stored rows.
        entries: the checkpoints, in the order in which they are shown.
        weights: the id of each checkpoint's weights, by its name.
    """
    found = standings(rows, weights)
    tables = [_overall(found), *(_of_checkpoint(entry, found[entry.name]) for entry in entries if entry.name in found)]
    missing = [entry.name for entry in entries if entry.name not in found]
    note = [f"\nWithout rows: {', '.join(missing)}.\n"] if missing else []
    note += _precision_note(found)
    return "\n".join([HEAD.format(tolerance=tolerance_sentence()), to_markdown(tables), *note]).rstrip("\n") + "\n"


def _precision_note(found: Mapping[str, Sequence[Standing]]) -> Iterator[str]:
    """A sentence on the fine-tunings of an older precision, with their names and checkpoints unless all are such."""
    lines = [(name, line) for name, best in found.items() for line in best if line.row.method in FINETUNINGS]
    older: dict[str, list[str]] = defaultdict(list)
    for name, line in lines:
        if is_of_older_precision(line.row):
            older[name].append(line.name)
    if older and sum(map(len, older.values())) == len(lines):
        yield "\nFine-tunings are from before they took training's precision on a GPU: these computed in fp32.\n"
    elif older:
        listed = "; ".join(f"{', '.join(sorted(names))} on {name}" for name, names in sorted(older.items()))
        yield f"\nFrom before fine-tunings took training's precision on a GPU, and computed in fp32: {listed}.\n"


def tolerance_sentence() -> str:
    """What a check allows, which is what another kind of device and other versions may change."""
    amounts = ", ".join(f"{column} {tolerance_of(column, ())}" for column in COMPARED)
    return f"A line is reproduced within these differences of shares, or of perplexity: {amounts}."


def _overall(found: Mapping[str, Sequence[Standing]]) -> Table:
    """Every method with its score on each checkpoint, and their mean; methods that have run on more checkpoints first."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for checkpoint, lines in found.items():
        for line in lines:
            scores[line.name][checkpoint] = line.score
    order = sorted(scores, key=lambda name: (-len(scores[name]), statistics.fmean(scores[name].values()), name))
    columns = (Column("method", numeric=False), Column("mean"), Column("worst"), *map(Column, found))
    rows = tuple((Cell(name), *_summary(scores[name]), *(_score_cell(scores[name].get(c)) for c in found)) for name in order)
    return Table("leaderboard", "leaderboard", "Scores by checkpoint", columns, rows)


def _summary(scores: Mapping[str, float]) -> Iterator[Cell]:
    yield _score_cell(statistics.fmean(scores.values()))
    yield _score_cell(max(scores.values()))


def _score_cell(value: float | None) -> Cell:
    return Cell(DASH) if value is None else Cell(signed(value, 1), value=value)


def _of_checkpoint(entry: Entry, lines: Sequence[Standing]) -> Table:
    """One checkpoint's methods, the best first."""
    first = lines[0]
    unit = "accuracy %" if first.candidate.metric == "accuracy" else "perplexity"
    cost = "points lost" if first.candidate.metric == "accuracy" else "% added"
    heads = ("method", "options", "% memorized", "% of holdout", unit, cost, "seconds", "score")
    columns = tuple(Column(head, numeric=i > 1) for i, head in enumerate(heads))
    return Table(entry.name, entry.name, entry.name, columns, tuple(map(_line, lines)), (_before(first),))


def _line(line: Standing) -> tuple[Cell, ...]:
    holdout = line.row.share(RATES["holdout"], "after")
    return (
        Cell(line.name),
        Cell(line.setting.options),
        memorized_cell(line.setting, "after"),
        Cell(percent_of(holdout)),
        performance_cell(line.setting, "after"),
        Cell(signed(lost(line.candidate), 2), value=lost(line.candidate)),
        seconds_cell(line.setting.seconds, line.setting.sources),
        _score_cell(line.score),
    )


def _before(line: Standing) -> str:
    row, unit = line.row, "%" if line.row.is_share else "perplexity"
    share = percent_of(line.setting.counts("before"))
    return f"Before: {share} memorized, {significant(line.candidate.performance_before)} {unit}; seconds on {row.device or DASH}."
