"""The paper's Tables 1 and 2 in form, the best run of each method, and the Pareto front of all configurations."""

from __future__ import annotations

from collections.abc import Iterator

from tinymem.report.cells import DASH, fraction
from tinymem.report.groups import Group, in_order
from tinymem.report.means import Mean, digits_for, mean_of, plus_minus
from tinymem.report.selection import Candidate, in_time, lost, pareto, percent_change, score
from tinymem.report.setting import Setting
from tinymem.report.table import Cell, Column, Table, anchor

NOTHING = Cell(DASH)
LABELS = {"none": "trained model"}


def table_of_methods(group: Group, number: str) -> Table:
    """Table 1 (math) or 2 (language) for one kind of model: the best run of every method on every artifact."""
    columns = [Column("method", numeric=False)]
    for artifact in group.artifacts:
        heads = ("% memorised", "perplexity" if _metric(group, artifact) == "perplexity" else "accuracy %", "seconds")
        columns += [Column(head, artifact) for head in heads]
    lines = [(LABELS["none"], {a: group.baseline.get(a) for a in group.artifacts}, True)]
    lines += [(f"{name} (trained with)", {a: group.best_training(a, name) for a in group.artifacts}, True) for name in _regularizers(group)]
    lines += [(name, {a: group.best(a, name) for a in group.artifacts}, False) for name in group.methods()]
    winners = {artifact: _winner(group, artifact) for artifact in group.artifacts}
    rows = []
    for name, found, trained in lines:
        cells = [Cell(name)]
        for artifact, setting in found.items():
            seconds = _overhead(group, artifact, setting) if trained else _seconds(setting)
            cells += _triple(setting, seconds, best=setting is not None and setting is winners[artifact])
        rows.append(tuple(cells))
    title = f"Table {number}. {group.name[:1].upper()}{group.name[1:]}"
    return Table(number, anchor(f"table-{number}-{group.key}"), title, tuple(columns), tuple(rows), tuple(_notes(group)))


def _triple(setting: Setting | None, seconds: Cell, *, best: bool) -> list[Cell]:
    if setting is None or not setting.rows:
        return [NOTHING, NOTHING, NOTHING]
    pair = [memorised_cell(setting, "after", best=best), performance_cell(setting, "after", best=best)]
    return [*pair, Cell(**{**vars(seconds), "best": best})]


def mean_cell(mean: Mean | None, digits: int, sources: tuple[str, ...], *, small: str = "", best: bool = False) -> Cell:
    """A mean with its spread, and what it is of."""
    if mean is None:
        return NOTHING
    return Cell(plus_minus(mean, digits), small, mean.mean, mean.spread, mean.n, sources, best=best)


def memorised_cell(setting: Setting, when: str, *, best: bool = False) -> Cell:
    """Percent memorised, with the counts summed over the seeds."""
    counts = setting.counts(when)
    return mean_cell(setting.memorised(when), 2, setting.sources, small=fraction(*counts) if counts else "", best=best)


def performance_cell(setting: Setting, when: str, *, best: bool = False) -> Cell:
    """Accuracy in percent, or perplexity."""
    return mean_cell(setting.performance(when), 2, setting.sources, best=best)


def seconds_cell(mean: Mean | None, sources: tuple[str, ...]) -> Cell:
    """Seconds, with as many digits as say something."""
    return mean_cell(mean, digits_for(mean.mean) if mean else 0, sources)


def _seconds(setting: Setting | None) -> Cell:
    return seconds_cell(setting.seconds, setting.sources) if setting else NOTHING


def _overhead(group: Group, artifact: str, setting: Setting | None) -> Cell:
    """What a regulariser adds to the time of training, as in the paper; nothing for the models that have none."""
    if setting is None or setting is group.baseline.get(artifact):
        return NOTHING
    plain = mean_of(row.get("training_seconds") for row in group.baseline[artifact].rows)
    if plain is None:
        return NOTHING
    added = [None if (own := row.get("training_seconds")) is None else own - plain.mean for row in setting.rows]
    return seconds_cell(mean_of(added), setting.sources)


def _winner(group: Group, artifact: str) -> Setting | None:
    """The method with the lowest score of all."""
    found = [(score(c, group.protocol), s) for m in group.methods() if (s := group.best(artifact, m)) and (c := s.candidate())]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _regularizers(group: Group) -> list[str]:
    return in_order({setting.method for found in group.regularised.values() for setting in found})


def _metric(group: Group, artifact: str) -> str:
    known = [group.baseline.get(artifact), *group.settings.get(artifact, [])]
    return next((setting.metric for setting in known if setting and setting.rows), "accuracy")


def _notes(group: Group) -> Iterator[str]:
    yield "Each method's best run by the criteria of the paper's A.3.5; the best of all in bold. Counts are rows memorised of rows scored."
    yield from seeds_note(group)
    for artifact in group.artifacts:
        if any(row.get("memorised_by_copies_before") for row in group.baseline[artifact].rows) and artifact == "noise":
            yield "noise: of the rows repeated most often, as in the paper."
        if group.seconds_limit(artifact) is None and group.settings.get(artifact):
            yield f"{artifact}: no limit of time, as fine-tuning on extra data (finetune-extra) was not run."
    for artifact, method, reason in _without_result(group):
        yield f"{method} on {artifact}: no result ({reason})."


def seeds_note(group: Group) -> Iterator[str]:
    """How many seeds and which epoch stand behind each artifact."""
    for artifact in group.artifacts:
        seeds = sorted({row.get("seed") for row in group.baseline[artifact].rows}, key=str)
        if seeds:
            listed = ", ".join(map(str, seeds))
            several = f"{len(seeds)} seeds ({listed}), mean ± sample standard deviation" if len(seeds) > 1 else f"seed {listed}"
            epoch = group.epochs.get(artifact)
            yield f"{artifact}: {several}" + (f"; models after epoch {epoch:,}." if epoch is not None else ".")


def _without_result(group: Group) -> Iterator[tuple[str, str, str]]:
    for artifact in group.artifacts:
        done = {setting.method for setting in group.settings[artifact]}
        for method in in_order({row["method"] for row in group.failed[artifact]} - done):
            row = next(row for row in group.failed[artifact] if row["method"] == method)
            yield artifact, method, f"{row['status']}: {row.get('message') or 'no reason was recorded'}"


# ---- best runs and fronts -----------------------------------------------------------------------------------------------------------


def table_of_best(group: Group) -> Table:
    """The chosen configuration of every method, with what chose it."""
    rows = [line for artifact in group.artifacts for method in group.methods() if (line := _best_line(group, artifact, method))]
    heads = (
        "artifact",
        "method",
        "options",
        "% memorised",
        "% change",
        "performance",
        "change",
        "seconds",
        "score",
        "runs",
        "in time",
        "front",
    )
    columns = tuple(Column(head, numeric=i > 2) for i, head in enumerate(heads))
    sign = "M + P" if group.protocol == "reference" else "M − P"
    notes = (
        f"Score (A.3.5): M + P in perplexity, with 100 added if nothing was forgotten; {sign} in accuracy; M and P are the two changes. "
        "Lower is better.",
        "Runs: seeds of the chosen configuration, and how many configurations it was chosen from. In time: no longer than fine-tuning on "
        "extra data. Front: no configuration of any method forgets more and loses less.",
        *seeds_note(group),
    )
    title = f"Best run of each method. {group.name[:1].upper()}{group.name[1:]}"
    return Table("best", anchor(f"best-{group.key}"), title, columns, tuple(rows), notes)


def _best_line(group: Group, artifact: str, method: str) -> tuple[Cell, ...] | None:
    setting = group.best(artifact, method)
    candidate = setting.candidate() if setting else None
    if setting is None or candidate is None:
        return None
    sources, limit = setting.sources, group.seconds_limit(artifact)
    changes = (
        percent_change(candidate.memorised_before, candidate.memorised_after),
        percent_change(candidate.performance_before, candidate.performance_after),
        score(candidate, group.protocol),
    )
    m, p, total = (Cell(f"{value:+.1f}", value=value, n=setting.seeds, sources=sources) for value in changes)
    runs = f"{setting.seeds} of {len(group.of_method(artifact, method))}"
    timely = DASH if limit is None else "yes" if in_time(candidate, limit) else "no"
    front = "yes" if any(setting is other for other in front_of(group, artifact)) else ""
    named = [Cell(artifact), Cell(method), Cell(setting.options)]
    numbers = [memorised_cell(setting, "after"), m, performance_cell(setting, "after"), p, _seconds(setting), total]
    return (*named, *numbers, Cell(runs, n=setting.seeds), Cell(timely), Cell(front))


def front_of(group: Group, artifact: str) -> list[Setting]:
    """Configurations of all methods that no other one beats in both, memorised and lost; least memorised first."""
    scored = [(setting, candidate) for setting in group.settings.get(artifact, []) if (candidate := setting.candidate()) is not None]
    kept = pareto([_point(candidate) for _, candidate in scored])
    front = [pair for pair, keep in zip(scored, kept, strict=True) if keep]
    return [setting for setting, candidate in sorted(front, key=lambda pair: _point(pair[1]))]


def _point(candidate: Candidate) -> tuple[float, float]:
    return candidate.memorised_after, lost(candidate)


def table_of_fronts(group: Group) -> Table:
    """The Pareto front of each artifact."""
    rows = [_front_line(artifact, setting) for artifact in group.artifacts for setting in front_of(group, artifact)]
    heads = ("artifact", "method", "options", "% memorised", "performance", "lost", "seconds")
    columns = tuple(Column(head, numeric=i > 2) for i, head in enumerate(heads))
    notes = (
        "Configurations that no other one beats: none memorises less and loses no more, or as little and loses less. Equal ones all stay.",
        "Lost: points of accuracy, or percent of perplexity added.",
        *seeds_note(group),
    )
    title = f"Pareto front. {group.name[:1].upper()}{group.name[1:]}"
    return Table("pareto", anchor(f"pareto-{group.key}"), title, columns, tuple(rows), notes)


def _front_line(artifact: str, setting: Setting) -> tuple[Cell, ...]:
    candidate = setting.candidate()
    assert candidate is not None
    loss = Cell(f"{lost(candidate):.2f}", value=lost(candidate), n=setting.seeds, sources=setting.sources)
    numbers = [memorised_cell(setting, "after"), performance_cell(setting, "after"), loss, _seconds(setting)]
    return Cell(artifact), Cell(setting.method), Cell(setting.options), *numbers
