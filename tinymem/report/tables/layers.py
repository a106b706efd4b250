"""Tables of localization by layer: weights, centers of gravity, events, agreement, and control models (Dankers and Titov 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from tinymem.localization.layers.findings import TOPS, scaled, spearman
from tinymem.report.cells import DASH, number
from tinymem.report.means import Mean, mean_of, plus_minus
from tinymem.report.tables.layered import OfModel, models_of
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.row import LocalizationRow
from tinymem.runtime.words import counted

NAMES = ("layers", "layers-events", "layers-gradients", "layers-centers", "layers-agreement", "layers-control")
WEIGHTS_NOTE = (
    "% of a technique's weight in each layer (1 is next to the embedding): of swapping and retraining the share of planted decisions that "
    "are undone, mean over windows that hold the layer; of gradients their post-processed norm; of probes the rise in F1. Center: mean "
    "layer by weight, and from 0 (first) to 1 (last). Clean: decisions of held-out clean rows that stay right, mean of windows. {count}"
)
EVENTS_NOTE = (
    "Layers, from 1. Crossing: the last at which decisions leave the original target's half, mean over pairs of targets that cross (% of "
    "pairs); initiation: the first from which on two targets' states are apart. Margin: where the planted target last comes to lead. "
    "Label probes: the first layer where the planted target is predicted 10 points better than the original, and that where clean ones are "
    "predicted 90 % as well as at best. A dash: it never happens."
)
CONTROL_NOTE = (
    "Control models, whose planted rows could change some layers only: % of a technique's best layers that are among them, mean ± standard "
    "deviation over models. A random choice is right in {chance} %."
)
AGREEMENT_NOTE = (
    "Spearman's rank correlation of the layers' weights, mean ± standard deviation: of two techniques over models; of models over pairs of "
    "equal depth, weights of all techniques brought to [0, 1] each and joined. Centers: the same of the centers of gravity over models."
)
SOUND = 0.95
"""Share of the clean decisions that must stay right for a technique that exchanges layers to be about memory (spared by it)."""
EVENTS = (
    ("crossing", "centroids", "crossing"), ("initiation", "centroids", "initiation"), ("margin", "centroids", "margin_crossing"),
    ("planted over original", "label-probes", "overtaking"), ("clean initiation", "label-probes", "initiation"),
)  # fmt: skip


@report_table(*NAMES)
def tables_of_layers(inputs: TableInputs) -> list[Table]:
    """Tables of localization by layer, of every model and of all together."""
    return layers_tables(inputs.results.localization)


def layers_tables(rows: Iterable[LocalizationRow]) -> list[Table]:
    """All tables that the rows allow."""
    models = models_of(rows)
    each = [table for model in models for table in (_weights(model), _events(model), _gradients(model)) if table.rows]
    alike: dict[str, list[OfModel]] = {}
    for model in models:
        alike.setdefault(model.settings, []).append(model)
    apart = [("", of) if len(alike) == 1 else (words or "default options", of) for words, of in alike.items()]
    joint = [_centers(models), *(_agreement(of, words) for words, of in apart), *(_control(of, words) for words, of in apart)]
    return [*each, *(table for table in joint if table.rows)]


def _weights(model: OfModel) -> Table:
    depth = max((len(model.weights(method)) for method in model.techniques), default=0)
    heads = [
        *(Column(str(layer + 1), "layer") for layer in range(depth)),
        Column("center"),
        Column("0 to 1"),
        Column("clean %"),
        Column("s"),
    ]
    lines = []
    for method in model.techniques:
        weights = model.weights(method)
        total, source = sum(weights), (model.find(method, "weight")[0].source,)
        shares = [Cell(number(100 * w / total if total else None), value=w, sources=source) for w in weights]
        monitor = mean_of(r.score for r in model.find(method, "clean_accuracy"))
        numbers = (_value(model.one(method, "center"), 2), _value(model.one(method, "relative_center"), 2))
        seconds = model.find(method, "weight")[0].seconds
        before = model.one(method, "clean_before")
        small = f"before {100 * before.score:.1f}" if before and before.score is not None else ""
        clean = Cell(DASH) if monitor is None else Cell(number(100 * monitor.mean), small, monitor.mean)
        lines.append((Cell(method, value=method, sources=source), *shares, *numbers, clean, Cell(number(seconds), value=seconds)))
    notes = [WEIGHTS_NOTE.format(count=counted(model.rows[0].sequences or 0, "planted decision") + "."), *_spoiled(model)]
    return _table("layers", model, "Layers that memorize", [Column("technique", numeric=False), *heads], lines, *notes)


def _spoiled(model: OfModel) -> list[str]:
    """A warning where exchanged layers also break clean decisions, so that what is undone was not memory alone."""
    found = []
    for method in ("layer-swapping", "layer-retraining"):
        monitor, before = mean_of(r.score for r in model.find(method, "clean_accuracy")), model.one(method, "clean_before")
        if monitor and before and before.score and monitor.mean < SOUND * before.score:
            found.append(
                f"{method} breaks clean decisions too ({100 * monitor.mean:.0f} % stay right): its weights say little about memory."
            )
    return found


def _events(model: OfModel) -> Table:
    lines = []
    for swapped in ("", "bottom", "top"):
        options = {"swapped": swapped} if swapped else {}
        found = [model.one(method, score, **options) for _, method, score in EVENTS]
        if any(model.find(method, score, **options) for _, method, score in EVENTS):
            crossed = model.one("centroids", "crossed", **options)
            cells = [_value(row, 1) for row in found]
            if found[0] and crossed and crossed.score is not None:
                cells[0] = Cell(cells[0].text, f"{100 * crossed.score:.0f} % of pairs", cells[0].value, sources=cells[0].sources)
            lines.append((Cell(f"{swapped} half swapped" if swapped else "as trained"), *cells))
    heads = [Column("model", numeric=False), *(Column(title) for title, _, _ in EVENTS)]
    return _table("layers-events", model, "Where planted targets take over", heads, lines, EVENTS_NOTE)


def _gradients(model: OfModel) -> Table:
    variants = list(dict.fromkeys(str(r.options) for r in model.rows if r.method == "forgetting-gradients" and r.score_name == "weight"))
    lines = []
    for variant in variants if len(variants) > 1 else ():
        rows = [r for r in model.rows if r.method == "forgetting-gradients" and str(r.options) == variant]
        by = {r.score_name: r for r in rows if r.layer is None and r.score is not None}
        weights = [Cell(number(100 * (r.score or 0.0)), value=r.score) for r in rows if r.score_name == "weight"]
        options = rows[0].options or {"norm": "L1", "minus_clean": True, "over_frozen": True}
        names = [str(options["norm"]), *("yes" if options[key] else "no" for key in ("minus_clean", "over_frozen"))]
        lines.append(
            (*(Cell(name) for name in names), *weights, _value(by.get("center"), 2), *(_percent(by.get(f"accuracy@{top}")) for top in TOPS))
        )
    depth = max((len(line) for line in lines), default=6) - 6
    heads = [Column(title, numeric=False) for title in ("norm", "minus clean", "over frozen")]
    heads += [*(Column(str(i + 1), "layer") for i in range(depth)), Column("center"), *(Column(f"right @{top} %") for top in TOPS)]
    note = (
        "Forgetting gradients, % of the weight in each layer, with and without the two corrections; the first line is the published choice."
    )
    return _table("layers-gradients", model, "Gradients and their post-processing", heads, lines, note)


def _centers(models: Sequence[OfModel]) -> Table:
    techniques = list(dict.fromkeys(method for model in models for method in model.techniques))
    lines = []
    for model in models if len(models) > 1 else ():
        found = [(model.one(method, "center"), model.one(method, "relative_center")) for method in techniques]
        cells = [Cell(_value(c, 2).text, _value(r, 2).text if r else "", c.score if c else None) for c, r in found]
        lines.append((Cell(model.name, model.rows[0].artifact), Cell(str(model.rows[0].n_layer), value=model.rows[0].n_layer), *cells))
    heads = [Column("model", numeric=False), Column("layers"), *(Column(method) for method in techniques)]
    note = "Center of gravity of each technique's weights, in layers from 1, and below it from 0 (first layer) to 1 (last)."
    return _joint("layers-centers", "Centers of memorization by model", heads, lines, note)


def _agreement(models: Sequence[OfModel], words: str) -> Table:
    techniques = list(dict.fromkeys(method for model in models for method in model.techniques))
    lines = []
    for one, other in combinations(techniques, 2):
        both = [(model.weights(one), model.weights(other)) for model in models if model.weights(one) and model.weights(other)]
        centers = [(m.one(one, "center"), m.one(other, "center")) for m in models]
        known = [(a.score or 0.0, b.score or 0.0) for a, b in centers if a and b]
        of_centers = spearman([a for a, _ in known], [b for _, b in known])
        lines.append(_agreeing(f"{one}, {other}", mean_of(spearman(*pair) for pair in both), of_centers))
    pairs = [_joined(*pair) for pair in combinations(models, 2)]
    if between := mean_of(spearman(*pair) for pair in pairs if pair):
        lines.append(_agreeing("models", between, None))
    heads = [Column("of", numeric=False), Column("weights"), Column("pairs or models"), Column("centers")]
    return _joint("layers-agreement", "Agreement of techniques and of models", heads, lines, AGREEMENT_NOTE, words)


def _joined(one: OfModel, other: OfModel) -> tuple[list[float], list[float]] | None:
    """Scaled weights of two models, of all techniques that both have with equally many layers."""
    both = [(one.weights(method), other.weights(method)) for method in one.techniques if method in other.techniques]
    same = [(scaled(a), scaled(b)) for a, b in both if len(a) == len(b)]
    return ([w for a, _ in same for w in a], [w for _, b in same for w in b]) if same else None


def _agreeing(name: str, weights: Mean | None, centers: float | None) -> tuple[Cell, ...]:
    text = plus_minus(weights, 2)
    count = weights.n if weights else 0
    return (
        Cell(name),
        Cell(text, value=weights.mean if weights else None),
        Cell(str(count), value=count),
        Cell(number(centers, 2), value=centers),
    )


def _control(models: Sequence[OfModel], words: str) -> Table:
    controls = [model for model in models if any(r.score_name == "accuracy@1" for r in model.rows)]
    lines, chances = [], set()
    for method in dict.fromkeys(method for model in controls for method in model.techniques):
        rows = {top: [row for m in controls if (row := m.one(method, f"accuracy@{top}"))] for top in TOPS}
        chances |= {f"{100 * row.chance:.3g}" for found in rows.values() for row in found if row.chance is not None}
        cells = [_mean_cell([r.score for r in found], [r.source for r in found]) for found in rows.values()]
        count = len(rows[TOPS[0]])
        lines.append((Cell(method), *cells, Cell(str(count), value=count)))
    heads = [Column("technique", numeric=False), *(Column(f"right @{top} %") for top in TOPS), Column("models")]
    note = CONTROL_NOTE.format(chance=" or ".join(sorted(chances)))
    return _joint("layers-control", "Techniques on control models", heads, lines, note, words)


def _mean_cell(scores: Sequence[float | None], sources: Sequence[str]) -> Cell:
    mean = mean_of(None if score is None else 100 * score for score in scores)
    return Cell(DASH) if mean is None else Cell(plus_minus(mean, 1), value=mean.mean, spread=mean.spread, n=mean.n, sources=tuple(sources))


def _value(row: LocalizationRow | None, digits: int) -> Cell:
    return Cell(DASH) if row is None else Cell(number(row.score, digits), value=row.score, sources=(row.source,))


def _percent(row: LocalizationRow | None) -> Cell:
    return Cell(DASH) if row is None or row.score is None else Cell(f"{100 * row.score:.0f}", value=row.score, sources=(row.source,))


def _table(name: str, model: OfModel, title: str, heads: Sequence[Column], lines: Sequence[tuple[Cell, ...]], *notes: str) -> Table:
    return Table(name, model.key(name), f"{title}: {model.name}, {model.rows[0].artifact}", tuple(heads), tuple(lines), notes)


def _joint(name: str, title: str, heads: Sequence[Column], lines: Sequence[tuple[Cell, ...]], note: str, words: str = "") -> Table:
    """A table over models, of all or of those with the options that the words say."""
    if words:
        return Table(name, anchor(f"{name}-{words}"), f"{title}: {words}", tuple(heads), tuple(lines), (note,))
    return Table(name, name, title, tuple(heads), tuple(lines), (note,))
