"""Figures from made-up rows and curves: their numbers by hand, what is skipped and why, and the files."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_rows import METHODS, by_layer, curve, recipe, row, sweep_rows

from tinymem.errors import UserError
from tinymem.report.figures.axes import NOISE
from tinymem.report.figures.boxes import figure_2, figure_3
from tinymem.report.figures.by_layer import layer_lines
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.figures.curves import curve_lines, figure_6, figure_7
from tinymem.report.figures.density import cells
from tinymem.report.figures.figure import FigureData, Skipped, to_csv, to_json
from tinymem.report.figures.files import to_inline_svg, write_figures
from tinymem.report.figures.landscape import stored_landscapes
from tinymem.report.figures.over_training import figure_20, figures_8_to_11
from tinymem.report.figures.points import Inputs, inputs_of
from tinymem.report.figures.scatters import draw_by_kind, figure_5, figure_22, figures_12_to_15, pareto_fronts
from tinymem.report.figures.zeroed import figures_16_to_19
from tinymem.report.tables.catalogue import tables_of
from tinymem.results.collect import results_of
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord


def inputs(*rows: MeasuredRow, records: list[RunRecord] | None = None) -> Inputs:
    return inputs_of(results_of(rows, records or []))


def drawn(figures: list[FigureData | Skipped]) -> FigureData:
    """The only figure that was not skipped."""
    [figure] = [figure for figure in figures if isinstance(figure, FigureData)]
    return figure


@pytest.fixture(scope="module")
def sweep() -> Inputs:
    """A small sweep: two depths, two epochs, two seeds, additive math and text."""
    return inputs(*sweep_rows(("additive", "wiki"), (2, 4), (500, 1500), (0, 1), (3000,)))


@pytest.mark.slow
def test_an_axis_that_spans_less_than_an_interval_says_so() -> None:
    """Two accuracies of 10,000 tokens, whose intervals are 0.9 points wide: 0.4 points apart, then 4."""
    for second, noise in ((9460, True), (9100, False)):
        rows = [
            row(method, id=method, performance_after=count / 10_000, performance_tokens=10_000, performance_count_after=count, after=after)
            for method, count, after in (("act", 9500, 0.1), ("durable", second, 0.4))
        ]
        figures = {figure.key: figure for figure in figures_of(results_of(rows))[0]}
        [line, _] = figures["figure-05"].lines
        assert line["performance_change_interval"] == pytest.approx(100 * 0.855 / 96, rel=0.01)
        [axes] = [axes for axes in figures["figure-05"].draw(figures["figure-05"].lines).axes if axes.get_visible()]
        assert (NOISE in axes.get_ylabel()) == noise and NOISE not in axes.get_xlabel(), "memorized: 30 points of 100 rows"


@pytest.mark.slow
def test_figures_are_named_by_what_they_show() -> None:
    made, skipped = figures_of(results_of(list(sweep_rows())))
    assert not [figure.title for figure in (*made, *skipped) if "Figure" in figure.title]
    numbered = {figure.key: figure.described for figure in made if figure.paper}
    assert numbered["figure-05"].endswith("As the paper's Figure 5.") and "figure-12" in numbered and "pareto" not in numbered


def test_a_point_is_the_mean_of_its_seeds_in_percent_of_before() -> None:
    made = inputs(
        row(seed=0, before=0.4, after=0.1, performance_before=0.9, performance_after=0.81, id="a"),
        row(seed=1, before=0.6, after=0.15, performance_before=1.0, performance_after=0.9, id="b"),
    )
    [point] = made.points
    assert point.sources == ("a-noise", "b-noise") and point.seeds == 2
    assert point.memorized == pytest.approx(12.5)
    assert point.memorized_change == pytest.approx(100 * (0.125 - 0.5) / 0.5)
    assert point.performance_change == pytest.approx(100 * (0.855 - 0.95) / 0.95)
    assert (point.kind, point.unit, point.n_layer, point.epoch) == ("math + noise", "neuron", 4, 500)
    assert point.best and point.front


def test_the_best_is_chosen_for_each_model_and_epoch() -> None:
    rows = [
        row(options={"ratio": r}, config={"ratio": r}, epoch=epoch, after=after)
        for epoch, outcomes in ((500, (0.1, 0.3)), (1500, (0.4, 0.2)))
        for r, after in zip((0.01, 0.05), outcomes, strict=True)
    ]
    best = {p.epoch: p.options for p in inputs(*rows).best}
    assert best == {500: "ratio=0.01", 1500: "ratio=0.05"}


def test_rows_without_numbers_do_not_matter() -> None:
    nothing = {"memorized_before": None, "memorized_after": None, "performance_before": None, "performance_after": None}
    rows = [
        row("sou", id="1", status="failed", memorized_after=None, performance_after=None),
        row("zero", id="2", before=0.0, after=0.0),
        row("ig", id="3", performance_metric="perplexity", performance_before=20.0, performance_after=None),
        row("act", id="4", **nothing),
        row("slim", id="5", performance_metric="perplexity", performance_before=20.0, performance_after=float("inf")),
        row("durable", id="6", performance_metric="perplexity", performance_before=20.0, performance_after=float("nan")),
        read_measured({"method": "greedy", "artifact": "rows", "status": "ok"}, "bare"),
    ]
    made, skipped = figures_of(results_of(rows))
    assert not [figure for figure in made if figure.key not in ("pareto",)]
    assert {"figure-02", "figure-03", "figure-05", "figure-16", "figure-06a"} <= {s.key for s in skipped}
    assert all(s.reason.startswith("needs") for s in skipped)


def test_figure_2_compares_units() -> None:
    values = {"act": (0.1, 0.2, 0.4), "durable": (0.05, 0.05, 0.25)}
    rows = [
        row(method, before=0.5, after=after, n_layer=2 + i, id=f"{method}{i}")
        for method, afters in values.items()
        for i, after in enumerate(afters)
    ]
    lines = {(line["name"], line["quantity"]): line for line in drawn(figure_2(inputs(*rows))).lines}
    for name, afters in (("neuron", values["act"]), ("weight", values["durable"])):
        line, changes = lines[name, "memorized"], [100 * (after - 0.5) / 0.5 for after in afters]
        assert [line[k] for k in ("n", "low", "median", "high")] == pytest.approx([3, min(changes), sorted(changes)[1], max(changes)])
        assert line["q1"] == pytest.approx(np.quantile(changes, 0.25))
    assert lines["neuron", "accuracy"]["median"] == pytest.approx(100 * (0.94 - 0.96) / 0.96)
    assert isinstance(figure_2(inputs(*rows[:5]))[0], Skipped)


def test_figure_3_has_a_box_for_each_kind_method_and_quantity(sweep: Inputs) -> None:
    lines = drawn(figure_3(sweep)).lines
    assert {(line["kind"], line["quantity"]) for line in lines} == {
        (f"{data} + {artifact}", quantity)
        for data, metric in (("math", "accuracy"), ("language", "perplexity"))
        for artifact in ("noise", "backdoor")
        for quantity in ("memorized", metric)
    }
    assert {line["n"] for line in lines} == {4}  # two depths at two epochs
    assert len(lines) == 4 * 2 * len(METHODS)


def test_figure_5_has_a_point_per_method_and_model(sweep: Inputs) -> None:
    lines = drawn(figure_5(sweep)).lines
    assert len(lines) == 4 * 4 * len(METHODS)
    assert all(len(line["sources"]) == line["seeds"] == 2 for line in lines)
    assert isinstance(figure_5(inputs(row(status="failed")))[0], Skipped)
    assert len(drawn(figure_5(inputs(row()))).lines) == 1  # one model is enough


def test_pareto_fronts_hold_what_nothing_beats() -> None:
    outcomes = {"act": (0.1, 0.95), "zero": (0.2, 0.94), "durable": (0.3, 0.96), "sou": (0.1, 0.90)}
    rows = [row(method, after=after, performance_after=accuracy) for method, (after, accuracy) in outcomes.items()]
    rows.append(row("ig", after=0.0, performance_after=0.96, epoch=100))  # an earlier training time is another model
    lines = drawn(pareto_fronts(inputs(*rows))).lines
    assert [(line["method"], line["memorized"], line["performance"]) for line in lines] == [
        ("act", pytest.approx(10), pytest.approx(95)),
        ("durable", pytest.approx(30), pytest.approx(96)),
    ]


def test_the_front_of_the_figure_is_that_of_the_table(sweep: Inputs) -> None:
    results = results_of([measured for measured in sweep.rows if measured.epoch == 1500], [])
    listed = {source for t in tables_of(results, ["pareto"]) for line in t.rows for cell in line for source in cell.sources}
    assert listed == {source for point in inputs_of(results).points if point.front for source in point.sources} != set()


def test_curves_are_means_over_seeds_at_common_epochs() -> None:
    lines, shorter = curve(10), curve(20)[:3]
    records = [RunRecord(Path(f"r{i}"), [], found, recipe(seed=i)) for i, found in enumerate((lines, shorter))]
    made = [line for line in curve_lines(inputs(records=records).curves) if line["kind"] == "math + noise"]
    assert [line["epoch"] for line in made] == [10, 20, 30]
    for line in made:
        shares = [1 - 2 ** (-line["epoch"] / slowness) for slowness in (10, 20)]
        assert line["memorized"] == pytest.approx(100 * sum(shares) / 2)
        assert (line["performance"], line["metric"], line["seeds"], line["runs"]) == (pytest.approx(90), "accuracy", 2, ("r0", "r1"))


def test_figure_6_has_depths_and_duplication_classes() -> None:
    records = [RunRecord(Path(f"r{n}"), [], curve(n, text=True, copies=(1, 10)), recipe("wiki", n_layer=n)) for n in (2, 4)]
    made = {figure.key: figure for figure in figure_6(inputs(records=records))}
    lines = made["figure-06c"].lines  # type: ignore[union-attr]
    assert {(line["n_layer"], line["copies"]) for line in lines} == {(2, "1"), (2, "10"), (4, "1"), (4, "10")}
    assert {line["metric"] for line in lines} == {"perplexity"}
    assert isinstance(made["figure-06a"], Skipped) and isinstance(made["figure-06d"], FigureData)


def test_figure_7_compares_regularizers_with_the_same_model() -> None:
    records = [RunRecord(Path(f"r{r}{n}"), [], curve(), recipe(n_layer=n, regularizer=r)) for r in (None, "loss-truncation") for n in (4,)]
    records.append(RunRecord(Path("other"), [], curve(), recipe(n_layer=16)))
    made = {figure.key: figure for figure in figure_7(inputs(records=records))}
    lines = made["figure-07a"].lines  # type: ignore[union-attr]
    assert {(line["n_layer"], line["regularizer"]) for line in lines} == {(4, None), (4, "loss-truncation")}
    assert isinstance(figure_7(inputs(records=records[2:]))[0], Skipped)


def test_figures_8_to_11_are_means_over_data() -> None:
    rows = [
        row(after=after, before=0.5, data=data, epoch=epoch)
        for epoch, pair in ((500, (0.1, 0.2)), (1500, (0.3, 0.5)))
        for data, after in zip(("additive", "multiplicative"), pair, strict=True)
    ]
    figure = drawn(figures_8_to_11(inputs(*rows)))
    assert figure.key == "figure-08"
    assert [(line["epoch"], line["memorized_change"], line["models"]) for line in figure.lines] == [
        (500, pytest.approx(-70), 2),
        (1500, pytest.approx(-20), 2),
    ]


def test_figures_12_to_15_and_8_to_11_are_one_per_kind(sweep: Inputs) -> None:
    assert [figure.key for figure in figures_12_to_15(sweep)] == [f"figure-{n}" for n in (12, 13, 14, 15)]
    assert [figure.key for figure in figures_8_to_11(sweep)] == ["figure-08", "figure-09", "figure-10", "figure-11"]
    assert all(isinstance(figure, FigureData) for figure in [*figures_12_to_15(sweep), *figures_8_to_11(sweep)])
    rare = inputs(row(artifact="canary", epoch=1), row(artifact="canary", epoch=2))
    assert drawn(figures_12_to_15(rare)).key == "strata-math-canary"


def test_figures_16_to_19_count_what_was_zeroed() -> None:
    def counts(neurons: list[int], weights: list[int]) -> dict[str, Any]:
        layers = len(neurons)
        return {"neurons": neurons, "of_neurons": [50] * layers, "weights": weights, "of_weights": [1000] * layers}

    rows = [
        row("act", n_layer=2, edited_by_layer=counts([5, 0], [0, 0]), id="1"),
        row("act", n_layer=2, epoch=900, edited_by_layer=counts([10, 5], [0, 0]), id="2"),
        row("act", n_layer=4, edited_by_layer=counts([0, 0, 0, 2], [0] * 4), id="3"),
        row("durable", n_layer=2, edited_by_layer=counts([0, 0], [30, 10]), id="4"),
        row("zero", n_layer=2, id="5"),  # a row of before there was the column
    ]
    found = {figure.key: figure for figure in figures_16_to_19(inputs(*rows))}
    sizes = {line["group"]: line for line in found["figure-16"].lines}  # type: ignore[union-attr]
    assert sizes[2]["zeroed"] == pytest.approx((5 + 15) / 2) and sizes[2]["models"] == 2
    assert sizes[4]["zeroed"] == pytest.approx(1.0)
    assert isinstance(found["figure-17"], Skipped)  # weights on one size only
    assert [(line["group"], line["zeroed"]) for line in found["figure-19"].lines] == [("math + noise", pytest.approx(2.0))]  # type: ignore[union-attr]
    layers = [(line["method"], line["layers"], line["layer"], line["zeroed"]) for line in layer_lines(inputs(*rows))]
    assert layers == [
        ("act", 2, 1, pytest.approx(15)), ("act", 2, 2, pytest.approx(5)), ("durable", 2, 1, pytest.approx(3)),
        ("durable", 2, 2, pytest.approx(1)), *(("act", 4, i, pytest.approx(4 * (i == 4))) for i in (1, 2, 3, 4)),
    ]  # fmt: skip


def test_figure_21_counts_runs_within_the_papers_limits() -> None:
    text = {"performance_metric": "perplexity", "performance_before": 30.0, "data": "wiki", "data_size": None}
    ends = [(0.0, 30.0), (0.01, 31.0), (0.3, 30.0), (0.6, 30.0), (0.0, 40.0), (0.0, 3000.0)]  # share memorized, perplexity
    rows = [
        row(before=0.8, after=after, options={"ratio": i}, config={"ratio": i}, performance_after=ppl, **text)
        for i, (after, ppl) in enumerate(ends)
    ]
    found = cells(inputs(*rows).points, "perplexity")
    assert {(line["memorized_change"], line["performance_change"]): line["runs"] for line in found} == {(-95.0, 5.0): 2, (-65.0, 5.0): 1}
    assert cells(inputs(*rows).points, "accuracy") == []
    weaker = [
        row(**{**text, "performance_before": 60.0, "performance_after": end}, options={"ratio": end}, config={"ratio": end})
        for end in (90.0, 119.0, 121.0)
    ]
    assert sum(int(line["runs"]) for line in cells(inputs(*weaker).points, "perplexity")) == 2, "twice its own"  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_stored_landscape_is_drawn_and_a_broken_one_is_not(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, [], [], recipe())
    assert isinstance(stored_landscapes(Inputs(records=[record]))[0], Skipped)
    (tmp_path / "landscape").mkdir()
    lines = [
        {"model": "m", "rows": "test", "a": a, "b": b, "loss": None if a == b == 1 else a + 2 * b} for b in (-1, 0, 1) for a in (-1, 0, 1)
    ]
    path = tmp_path / "landscape" / "figure-04.json"
    path.write_text(json.dumps({"lines": lines}))
    [figure] = stored_landscapes(Inputs(records=[record]))
    assert isinstance(figure, FigureData) and figure.lines == lines
    assert {file.suffix for file in write_figures([figure], tmp_path / "out")} == {".png", ".svg", ".csv", ".json"}
    path.write_text('{"lines": 3}')
    assert isinstance(stored_landscapes(Inputs(records=[record]))[0], Skipped)


def test_numbers_as_csv_and_json() -> None:
    lines = [{"method": "a,b", "x": 1.5, "sources": ("r-noise", "s-noise")}, {"method": "c", "x": None, "y": float("inf"), "sources": ()}]
    assert list(csv.reader(io.StringIO(to_csv(lines)))) == [
        ["method", "x", "y", "sources"],
        ["a,b", "1.5", "", "r-noise s-noise"],
        ["c", "", "inf", ""],
    ]
    figure = FigureData("k", "t", "c", lines, lambda _: pytest.fail("nothing is drawn"))
    assert json.loads(to_json(figure))["lines"][1]["y"] == "inf"


@pytest.mark.thorough
def test_every_figure_draws_in_every_format(tmp_path: Path) -> None:
    rows = list(sweep_rows(("additive", "wiki"), (2, 4), (500, 1500), (0,), (3000,)))
    records = [RunRecord(Path(f"r{n}{r}"), [], curve(), recipe(n_layer=n, regularizer=r)) for n in (2, 4) for r in (None, "spectral-norm")]
    made, _ = figures_of(results_of(rows, records))
    one_each = {figure.draw.__qualname__ if hasattr(figure.draw, "__qualname__") else str(figure.draw): figure for figure in made}
    assert len(one_each) >= 8
    write_figures(list(one_each.values()), tmp_path, ["svg"])
    write_figures([made[0]], tmp_path, ["png", "csv", "json"])
    for path in tmp_path.glob("*.svg"):
        text = path.read_text()
        assert "prefers-color-scheme:dark" in text and "http" not in text.replace("http://www.w3.org/", "")
        assert "better" in text or "best" in text or "zeroed (%)" in text, path
        assert "$\\mathdefault" not in text
    assert (tmp_path / f"{made[0].key}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_thousands_of_points_are_a_picture_in_the_svg() -> None:
    point = {"kind": "math + noise", "method": "act", "metric": "accuracy"}
    sizes = {}
    for count in (100, 1600):
        lines = [{**point, "memorized_change": -i / 20, "performance_change": -i / 100} for i in range(count)]
        text = to_inline_svg(FigureData("k", "t", "c", lines, partial(draw_by_kind, names=["act"]))).body
        assert ("<image" in text) == (count > 1500)
        sizes[count] = len(text)
    assert sizes[1600] < 2 * sizes[100]


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'png'"):
        write_figures([], tmp_path / "out", ["pgn"])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def series() -> Inputs:
    """A model that was trained elsewhere, at two steps, and one of our own beside it."""
    unknown = {"artifact": "rows", "data": None, "data_size": None, "n_layer": None, "epoch": None, "performance_metric": "perplexity"}
    rows = [
        row(method, **unknown, model_name=f"neox-step-{step}", model_id=f"m{step}", step=step, id=f"{method}{step}", before=before,
            after=before * left, performance_before=4000 / step, performance_after=5000 / step, edited_by_layer=by_layer(6, 0.05, 0.05))
        for step, before in ((100, 0.2), (200, 0.4))
        for method, left in (("act", 0.5), ("durable", 0.25))
    ]  # fmt: skip
    return inputs(*rows, row("act", id="own", edited_by_layer=by_layer(4, 0.01, 0.01)))


def test_steps_of_a_model_that_was_trained_elsewhere_are_its_training_times(series: Inputs) -> None:
    assert {(p.kind, p.epoch) for p in series.points} == {("neox", 100), ("neox", 200), ("math + noise", 500)}
    lines = drawn(figure_22(series)).lines
    assert {(line["epoch"], line["method"], line["memorized_change"]) for line in lines} == {
        (step, method, change) for step in (100, 200) for method, change in (("act", -50.0), ("durable", -75.0))
    }
    assert {line["performance_change"] for line in lines} == {25.0}
    assert {line["group"] for line in figures_16_to_19(series)[0].lines} == {4, "neox"}, "by layers, or else by name"  # type: ignore[union-attr]


def test_no_limit_of_time_chooses_among_runs_on_models_that_were_trained_elsewhere() -> None:
    """The slower run is better: out on a model of ours, for which fine-tuning sets the limit, and in by A.4.2."""
    for data, chosen in (("additive", "ratio=0.1"), (None, "ratio=0.01")):
        slow, fast, extra = (
            row(method, data=data, options=options, config={"of": method, **options}, after=after, seconds=seconds, id=f"{method}{seconds}")
            for method, options, after, seconds in (
                ("act", {"ratio": 0.01}, 0.0, 9.0), ("act", {"ratio": 0.1}, 0.3, 1.0), ("finetune-extra", {}, 0.1, 2.0)
            )
        )  # fmt: skip
        assert [p.options for p in inputs(slow, fast, extra).best if p.method == "act"] == [chosen]


def test_figure_20_shows_a_model_before_any_method(series: Inputs) -> None:
    lines = drawn(figure_20(series)).lines
    assert [(line["model"], line["step"], line["memorized"], line["performance"]) for line in lines] == [
        ("neox", 100, pytest.approx(20), 40.0),
        ("neox", 200, pytest.approx(40), 20.0),
    ]


def test_figure_20_has_the_mean_of_a_steps_models_as_table_3_has() -> None:
    unknown = {"artifact": "rows", "data": None, "data_size": None, "n_layer": None, "epoch": None, "performance_metric": "perplexity"}
    rows = [
        row(method, **unknown, model_name=f"neox-step-{step}", model_id=f"{step}-{seed}", step=step, seed=seed,
            id=f"{method}-{step}-{seed}", before=before, after=0.0, performance_before=100 * before)
        for method, seeds in (("act", (0, 1)), ("durable", (0,)))
        for step, seed, before in ((100, 0, 0.1), (100, 1, 0.4), (200, 0, 0.6))
        if seed in seeds
    ]  # fmt: skip
    for order in (rows, rows[::-1]):
        lines = drawn(figure_20(inputs(*order))).lines
        assert [(line["step"], line["memorized"], line["performance"], len(line["sources"])) for line in lines] == [
            (100, pytest.approx(25), pytest.approx(25), 2), (200, pytest.approx(60), pytest.approx(60), 1),
        ]  # fmt: skip


@pytest.mark.slow
def test_figures_of_a_series_are_drawn_by_step(series: Inputs) -> None:
    strata, curve = drawn(figure_22(series)), drawn(figure_20(series))
    [left, right] = strata.draw(strata.lines).axes
    assert [axes.get_title() for axes in (left, right)] == ["step 100", "step 200"] and left.get_ylabel() == "neox"
    assert [axes.get_xlabel() for axes in curve.draw(curve.lines).axes] == ["step of training"] * 2
    sizes = drawn(figures_16_to_19(series)[:1])
    assert [text.get_text() for text in sizes.draw(sizes.lines).legends[0].get_texts()] == ["neox", "4 layers"]
