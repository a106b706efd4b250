"""The paper's Tables 1 and 2 in form, the best run of each method, and the Pareto front of all configurations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from tinymem.report.cells import DASH, little_data, reason
from tinymem.report.configuration import Configuration
from tinymem.report.configurations import ModelGroup, in_order
from tinymem.report.means import Mean, digits_for, mean_of, plus_minus, signed
from tinymem.report.selection import in_time, lost, percent_change, score
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.row import Moment
from tinymem.results.share import Share
from tinymem.runtime.words import counted

NOTHING = Cell(DASH)
LABELS = {"none": "trained model"}


@report_table("1", "2", "3")
def tables_of_methods(inputs: TableInputs) -> list[Table]:
    """The paper's Tables 1 and 2 with our rows, and Table 3 for models on other rows."""
    return [table_of_methods(group, number) for number in ("1", "2", "3") for group in inputs.groups if _number(group) == number]


@report_table("best")
def tables_of_best(inputs: TableInputs) -> list[Table]:
    """The chosen configurations of each group of models."""
    return [table_of_best(group) for group in inputs.groups]


@report_table("pareto")
def tables_of_fronts(inputs: TableInputs) -> list[Table]:
    """The Pareto fronts of each group of models."""
    return [table_of_fronts(group) for group in inputs.groups]


def _number(group: ModelGroup) -> str:
    """The paper's table that has the form for such models."""
    data = group.columns.data
    return "2" if data == "wiki" else "1" if data in ("additive", "multiplicative") else "3"


def table_of_methods(group: ModelGroup, number: str) -> Table:
    """Table 1 (math) or 2 (language) for one kind of model: the best run of every method on every artifact."""
    columns = [Column("method", numeric=False)]
    for artifact in group.artifacts:
        columns += [Column(head, artifact) for head in ("% memorized", performance_head(group, artifact), "seconds")]
    lines = [(LABELS["none"], {a: group.baseline.get(a) for a in group.artifacts})]
    lines += [(f"{name} (trained with)", {a: group.best_training(a, name) for a in group.artifacts}) for name in _regularizers(group)]
    lines += [(name, {a: group.best(a, name) for a in group.artifacts}) for name in group.methods()]
    winners = {artifact: _winner(group, artifact) for artifact in group.artifacts}
    rows = []
    for name, found in lines:
        cells = [Cell(name)]
        for artifact, setting in found.items():
            cells += _triple(setting, seconds_of(group, artifact, setting), best=setting is not None and setting is winners[artifact])
        rows.append(tuple(cells))
    title = f"Table {number}. {group.name[:1].upper()}{group.name[1:]}"
    return Table(number, anchor(f"table-{number}-{group.key}"), title, tuple(columns), tuple(rows), tuple(_notes(group)))


def _triple(setting: Configuration | None, seconds: Cell, *, best: bool) -> list[Cell]:
    if setting is None or not setting.rows:
        return [NOTHING, NOTHING, NOTHING]
    pair = [memorized_cell(setting, "after", best=best), performance_cell(setting, "after", best=best)]
    return [*pair, replace(seconds, best=best)]


def mean_cell(mean: Mean | None, digits: int, sources: tuple[str, ...], *, share: Share | None = None, best: bool = False) -> Cell:
    """A cell of a mean with its spread and the rows behind it."""
    if mean is None:
        return NOTHING
    return Cell(plus_minus(mean, digits), value=mean.mean, spread=mean.spread, n=mean.n, share=share, sources=sources, best=best)


def memorized_cell(setting: Configuration, when: Moment, *, best: bool = False) -> Cell:
    """Percent memorized, with the counts summed over the seeds."""
    return mean_cell(setting.memorized(when), 2, setting.sources, share=setting.counts(when), best=best)


def performance_cell(setting: Configuration, when: Moment, *, best: bool = False) -> Cell:
    """A cell of performance: accuracy in percent, or perplexity."""
    return mean_cell(setting.performance(when), 2, setting.sources, best=best)


def seconds_cell(mean: Mean | None, sources: tuple[str, ...]) -> Cell:
    """A cell of seconds, with three or so significant digits."""
    return mean_cell(mean, digits_for(mean.mean) if mean else 0, sources)


def seconds_of(group: ModelGroup, artifact: str, setting: Configuration | None) -> Cell:
    """A cell of the method's seconds; for a model trained with a regularizer, those that it adds to training."""
    if setting is None or setting is group.baseline.get(artifact):
        return NOTHING
    if any(setting is other for other in group.regularized.get(artifact, [])):
        return _overhead(group, artifact, setting)
    return seconds_cell(setting.seconds, setting.sources)


def _overhead(group: ModelGroup, artifact: str, setting: Configuration) -> Cell:
    """Seconds of training beyond those without a regularizer, as in the paper."""
    plain = mean_of(row.training_seconds for row in group.baseline[artifact].rows)
    if plain is None:
        return NOTHING
    added = [None if (own := row.training_seconds) is None else own - plain.mean for row in setting.rows]
    return seconds_cell(mean_of(added), setting.sources)


def _winner(group: ModelGroup, artifact: str) -> Configuration | None:
    """The method with the lowest score of all."""
    found = [(score(c, group.protocol), s) for m in group.methods() if (s := group.best(artifact, m)) and (c := s.candidate())]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _regularizers(group: ModelGroup) -> list[str]:
    return in_order({setting.method for found in group.regularized.values() for setting in found})


def performance_head(group: ModelGroup, artifact: str | None = None) -> str:
    """`accuracy %` or `perplexity`, of one artifact or all."""
    known = [s for a in group.artifacts if artifact in (None, a) for s in (group.baseline[a], *group.settings[a]) if s.rows]
    return " / ".join(dict.fromkeys("perplexity" if s.metric == "perplexity" else "accuracy %" for s in known)) or "accuracy %"


def _notes(group: ModelGroup) -> Iterator[str]:
    yield "Each method's best run by the criteria of the paper's A.3.5; the best of all in bold. Counts are rows memorized of rows scored."
    yield from seeds_note(group)
    for artifact in group.artifacts:
        if any(row.memorized_by_copies_before for row in group.baseline[artifact].rows) and artifact == "noise":
            yield "noise: of the rows repeated most often, as in the paper."
        if group.columns.data and group.seconds_limit(artifact) is None and group.settings.get(artifact):
            yield f"{artifact}: no limit of time, as fine-tuning on extra data (finetune-extra) was not run."
    for artifact, method, why in _without_result(group):
        yield f"{method} on {artifact}: no result ({why})."


def seeds_note(group: ModelGroup) -> Iterator[str]:
    """Yield a note per artifact: its seeds and its epoch; and one about each model that was trained more than once."""
    for artifact in group.artifacts:
        seeds = sorted({row.seed for row in group.baseline[artifact].rows}, key=str)
        if seeds:
            listed = ", ".join(map(str, seeds))
            several = f"{counted(len(seeds), 'seed')} ({listed}), mean ± sample standard deviation" if len(seeds) > 1 else f"seed {listed}"
            yield f"{artifact}: {several}" + _epochs(group, artifact)
    yield from group.repeated
    measured = [row for artifact in group.artifacts for row in group.baseline[artifact].rows]
    fewest: dict[str, int | None] = {}
    for row in measured:
        fewest[row.artifact] = min(filter(None, (fewest.get(row.artifact), row.rows_scored)), default=None)
    yield from little_data(fewest, len({row.seed for row in measured}))


def _epochs(group: ModelGroup, artifact: str) -> str:
    """`; models after epoch 500.`, or the epoch of each seed where they differ."""
    by_epoch: dict[int, list[str]] = defaultdict(list)
    for row in sorted(group.baseline[artifact].rows, key=lambda row: str(row.seed)):
        if row.epoch is not None:
            by_epoch[row.epoch].append(str(row.seed))
    if len(by_epoch) > 1:
        found = "; ".join(f"seed{'s' * (len(seeds) > 1)} {' and '.join(seeds)} after epoch {e:,}" for e, seeds in sorted(by_epoch.items()))
        return f"; trained for different times: {found}."
    epoch = group.epochs.get(artifact)
    return f"; models after epoch {epoch:,}." if epoch is not None else "."


def _without_result(group: ModelGroup) -> Iterator[tuple[str, str, str]]:
    for artifact in group.artifacts:
        for method in group.methods():
            failed = [row for row in group.failed[artifact] if row.method == method]
            if group.best(artifact, method):
                continue
            if group.of_method(artifact, method):
                yield artifact, method, f"perplexity of {group.perplexity_limit:g} and more" if group.perplexity_limit else "overflow"
            elif failed:
                yield artifact, method, reason(failed[0])


# ---- best runs and fronts -----------------------------------------------------------------------------------------------------------


def table_of_best(group: ModelGroup) -> Table:
    """The chosen configuration of every method, with its score."""
    fronts = {artifact: group.front(artifact) for artifact in group.artifacts}
    found = [_best_line(group, artifact, method, fronts[artifact]) for artifact in group.artifacts for method in group.methods()]
    rows = [line for line in found if line]
    heads = ("artifact", "method", "options", "% memorized", "M", performance_head(group), "P", "seconds", "score", "seeds", "of", "")
    columns = tuple(Column(head, numeric=2 < i < 11) for i, head in enumerate(heads))
    sign = "M + P" if group.protocol == "reference" else "M − P"
    notes = (
        f"M, P: percent changes of the share memorized and of the performance. Score (A.3.5), lower is better: {sign} in accuracy; "
        "in perplexity M + P, and 100 more if nothing was forgotten.",
        "Of: configurations that it was chosen from. Slow: longer than fine-tuning on extra data, as all of the method's are. "
        "Front: no configuration of any method forgets more and loses less.",
        *seeds_note(group),
    )
    title = f"Best run of each method. {group.name[:1].upper()}{group.name[1:]}"
    return Table("best", anchor(f"best-{group.key}"), title, columns, tuple(rows), notes)


def _best_line(group: ModelGroup, artifact: str, method: str, front: list[Configuration]) -> tuple[Cell, ...] | None:
    setting = group.best(artifact, method)
    candidate = setting.candidate() if setting else None
    if setting is None or candidate is None:
        return None
    sources, limit = setting.sources, group.seconds_limit(artifact)
    changes = (
        percent_change(candidate.memorized_before, candidate.memorized_after),
        percent_change(candidate.performance_before, candidate.performance_after),
        score(candidate, group.protocol),
    )
    m, p, total = (Cell(signed(value, 1), value=value, n=setting.seeds, sources=sources) for value in changes)
    about = ["slow"] * (not in_time(candidate, limit)) + ["front"] * any(setting is other for other in front)
    named = [Cell(artifact), Cell(method), Cell(setting.options)]
    numbers = [memorized_cell(setting, "after"), m, performance_cell(setting, "after"), p, seconds_of(group, artifact, setting), total]
    of = len(group.of_method(artifact, method))
    return (*named, *numbers, Cell(str(setting.seeds), value=setting.seeds), Cell(f"{of}", value=of), Cell(", ".join(about)))


def table_of_fronts(group: ModelGroup) -> Table:
    """The Pareto front of each artifact."""
    rows = [_front_line(artifact, setting) for artifact in group.artifacts for setting in group.front(artifact)]
    heads = ("artifact", "method", "options", "% memorized", performance_head(group), "lost", "seconds")
    columns = tuple(Column(head, numeric=i > 2) for i, head in enumerate(heads))
    notes = (
        "Configurations that no other one beats: none memorizes less and loses no more, or as little and loses less. Equal ones all stay.",
        "Lost: points of accuracy, or percent of perplexity added.",
        *seeds_note(group),
    )
    title = f"Pareto front. {group.name[:1].upper()}{group.name[1:]}"
    return Table("pareto", anchor(f"pareto-{group.key}"), title, columns, tuple(rows), notes)


def _front_line(artifact: str, setting: Configuration) -> tuple[Cell, ...]:
    candidate = setting.candidate()
    assert candidate is not None
    loss = Cell(signed(lost(candidate), 2), value=lost(candidate), n=setting.seeds, sources=setting.sources)
    numbers = [memorized_cell(setting, "after"), performance_cell(setting, "after"), loss, seconds_cell(setting.seconds, setting.sources)]
    return Cell(artifact), Cell(setting.method), Cell(setting.options), *numbers
