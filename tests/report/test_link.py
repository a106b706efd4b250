"""The link between recall and edits: which rows make a pair, and the table and figure of pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinymem.report.figures.link import figure_of_link
from tinymem.report.figures.points import inputs_of
from tinymem.report.link import link_of, linked
from tinymem.report.tables.link import table_of_link
from tinymem.report.tables.registry import TableInputs
from tinymem.results.collect import Results
from tinymem.results.row import LocalizationRow, MitigationRow

INJ = LocalizationRow(
    id="i", method="act", artifact="sequences", status="ok", benchmark="inj", unit="neuron", model_id="m", ratio=0.02, top=0.02,
    scope="layer", score_name="recall", score=0.5, chance=0.02,
)  # fmt: skip
EDIT = MitigationRow(
    id="e", method="act", artifact="rows", status="ok", unit="neuron", model_id="m", config={"ratio": 0.02}, options={"ratio": 0.02},
    forget_memorized_count_before=20, forget_memorized_count_after=5, holdout_memorized_count_before=10, holdout_memorized_count_after=4,
    performance_metric="perplexity", performance_before=2.0, performance_after=2.5,
)  # fmt: skip


def pairs(localization, edits):
    return [pair for way in linked(Results(list(edits), localization=list(localization))) for pair in way.pairs]


def test_a_pair_is_a_method_at_a_ratio_on_a_model():
    (pair,) = pairs([INJ], [EDIT])
    assert (pair.method, pair.recall, pair.left, pair.holdout, pair.cost) == ("act", 0.5, 25.0, 40.0, 25.0)
    assert pair.sources == (INJ.source, EDIT.source)
    accuracy = replace(EDIT, performance_metric="accuracy", performance_before=0.8, performance_after=0.6)
    assert pairs([INJ], [accuracy])[0].cost == pytest.approx(25), "accuracy is worse where it falls"
    assert pairs([INJ], [EDIT, replace(EDIT, id="f", forget_memorized_count_after=15)])[0].left == 50, "several edits are averaged"
    for other in (
        replace(EDIT, model_id="n"),
        replace(EDIT, config={"ratio": 0.05}),
        replace(EDIT, method="ig"),
        replace(EDIT, status="failed"),
    ):
        assert pairs([INJ], [other]) == []
    for other in (replace(INJ, top=0.04), replace(INJ, scope="model"), replace(INJ, benchmark="del")):
        assert pairs([other], [EDIT]) == []
    assert pairs([INJ], [replace(EDIT, forget_memorized_count_before=0)])[0].left is None


def test_options_tell_variants_apart():
    variant = replace(INJ, id="j", options={"ratio": 0.01, "mode": "abs_mean"}, score=0.25)
    edits = [EDIT, replace(EDIT, id="f", options={"ratio": 0.02, "mode": "abs_mean"}, forget_memorized_count_after=10)]
    assert {(p.method, p.recall, p.left) for p in pairs([INJ, variant], edits)} == {("act", 0.5, 25.0), ("act mode abs_mean", 0.25, 50.0)}
    assert [p.method for p in pairs([INJ, variant], [EDIT])] == ["act"], "no other variant's edit is taken"
    assert [p.method for p in pairs([variant], [EDIT])] == ["act"], "the only variant takes what there is"


def test_edits_with_several_sets_of_options_are_never_one_mean():
    """With INJ's options among them, those alone are its pair, of all seeds; else none is, and a sentence says so."""
    grid = [replace(EDIT, id=f"e{n}", options={"ratio": 0.02, "epochs": n}, forget_memorized_count_after=n) for n in (4, 8)]
    seeds = [EDIT, replace(EDIT, id="f", seed=1, forget_memorized_count_after=15)]
    assert [pair.left for pair in pairs([INJ], [*grid, *seeds])] == [50]
    (way,) = linked(Results(grid, localization=[INJ]))
    told = "Left out, since edits with several sets of options are there, and none with INJ's: act (INJ: defaults; edits: 2 sets)."
    assert (way.pairs, way.notes) == ((), (told,))
    (table,) = table_of_link(TableInputs(Results(grid, localization=[INJ])))
    assert not table.rows and table.notes[1:] == (told,)


def test_edits_with_one_other_set_of_options_are_taken_with_a_sentence():
    localization, edits = many()
    asked = [replace(row, options={"epochs": 200}) if row.method == "slim" else row for row in localization]
    told = "Edits with other options than INJ: slim (INJ: epochs 200; edits: defaults)."
    (table,), (figure,) = (make(Results(edits, localization=asked)) for make in (lambda r: table_of_link(TableInputs(r)), figures_of))
    assert len(table.rows) == 3 and table.notes[1:] == (told,) and figure.caption.endswith(told)
    (plain,) = table_of_link(TableInputs(Results(edits, localization=localization)))
    assert [[c.text for c in row] for row in plain.rows] == [[c.text for c in row] for row in table.rows] and len(plain.notes) == 1
    only = [row for row in asked if row.method == "slim"]
    assert table_of_link(TableInputs(Results(edits, localization=only))) == [], "one method is no table, and no sentence either"


def figures_of(results):
    return figure_of_link(inputs_of(results))


STEPS = {"steps": 200, "loss": 0.05, "rows_id": "abcdef12"}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"settings": STEPS}, {"settings": {**STEPS, "steps": 3}}, ["steps 200", "steps 3"]),
        ({"settings": STEPS}, {"settings": {**STEPS, "rows_id": "99999999"}}, ["rows abcdef", "rows 999999"]),
        ({"seed": 0}, {"seed": 1}, ["seed 0", "seed 1"]),
        ({"sequences": 4}, {"sequences": 6}, ["sequences 4", "sequences 6"]),
        ({"device_type": "cpu"}, {"device_type": "cuda"}, ["device cpu", "device cuda"]),
        ({}, {"dtype": "bfloat16"}, ["weights float32", "weights bfloat16"]),
        ({"unit": "weight", "scope": "tensor"}, {"unit": "weight", "id": "i"}, ["scope tensor", "scope layer"]),
    ],
)
def test_ways_of_measuring_one_model_are_apart(one, other, words):
    asked = [replace(INJ, id="i", **one), replace(INJ, **{"id": "j", "score": 0.25, **other})]
    found = linked(Results([EDIT], localization=asked))
    assert [(way.words, [pair.recall for pair in way.pairs]) for way in found] == list(zip(words, ([0.5], [0.25]), strict=True))
    assert all(way.words == "" for row in asked for way in linked(Results([EDIT], localization=[row])))


def test_a_model_counts_once_in_a_link_and_beside_models_that_were_measured_alike():
    localization, edits = many()
    known = [replace(row, settings=STEPS) for row in localization]
    again = [
        replace(row, id=f"{row.id}3", score=1 - (row.score or 0), settings={**STEPS, "steps": 3}) for row in known if row.model_id == "m"
    ]
    tables = table_of_link(TableInputs(Results(edits, localization=[*known, *again])))
    assert [table.title.removeprefix("Does recall predict unlearning? ") for table in tables] == ["steps 200", "steps 3"]
    assert [[(row[3].value, row[4].text) for row in table.rows] for table in tables] == [[(2, "-1.00")] * 3, [(1, "+1.00")] * 3]
    figures = figure_of_link(inputs_of(Results(edits, localization=[*known, *again])))
    assert [(figure.key, len(figure.lines)) for figure in figures] == [("link-steps-200", 20), ("link-steps-3", 10)]


def test_results_that_nothing_tells_apart_are_left_out_with_a_sentence_and_equal_ones_count_once():
    twins = [INJ, replace(INJ, id="12345678", score=0.25)]
    (table,) = table_of_link(TableInputs(Results([EDIT], localization=twins)))
    assert not table.rows and table.notes[1].endswith("other results of the same scorer: act (123456), act (i).")
    assert pairs(twins, [EDIT]) == [] and table_of_link(TableInputs(Results([], localization=twins))) == []
    assert [pair.recall for pair in pairs([INJ, replace(INJ, id="12345678")], [EDIT])] == [0.5]


def test_edits_are_of_the_type_of_weights_that_inj_had_where_there_are_such():
    half = replace(EDIT, id="f", dtype="bfloat16", forget_memorized_count_after=15)
    assert [pairs([replace(INJ, dtype=dtype)], [EDIT, half])[0].left for dtype in (None, "float32", "bfloat16")] == [25, 25, 75]
    assert pairs([INJ], [half])[0].left == 75


def many():
    """Five methods on two models at two ratios: what is better recalled is better forgotten, and costs nothing in particular."""
    localization, edits = [], []
    for m, model in enumerate(("m", "n")):
        for ratio in (0.02, 0.05):
            for k, method in enumerate(("act", "ig", "zero", "slim", "nemo")):
                key = f"{model}{ratio}{method}"
                localization.append(
                    replace(INJ, id=f"i{key}", model_id=model, ratio=ratio, top=ratio, method=method, score=0.1 * k + ratio)
                )
                after = {"forget_memorized_count_after": 20 - 3 * k - m, "performance_after": 2.0 + [0.3, 0.1, 0.2, 0.4, 0.15][k]}
                edits.append(replace(EDIT, id=f"e{key}", model_id=model, config={"ratio": ratio}, method=method, **after))
    return localization, edits


@pytest.mark.slow
def test_the_table_and_the_figure_have_every_pair():
    localization, edits = many()
    found = pairs(localization, edits)
    assert len(found) == 20
    link = link_of(found, "left")
    assert (link.methods, link.strata, link.within.rho, link.within.high) == (5, 4, -1, -1)
    cost = link_of(found, "cost")
    assert cost.within.rho == pytest.approx(0) and cost.within.low < -0.5 < 0.5 < cost.within.high
    results = Results(edits, localization=localization)
    (table,) = table_of_link(TableInputs(results))
    assert [row[1].text for row in table.rows] == ["2 %", "5 %", "all"]
    assert table.rows[2][4].text == "-1.00" and table.rows[2][2].value == 5 and table.rows[2][3].value == 2
    (figure,) = figure_of_link(inputs_of(results))
    assert len(figure.lines) == 20 and figure.lines[0]["recall"] == pytest.approx(2)
    drawn = figure.draw(figure.lines)
    assert len(drawn.axes) == 2
    assert link_of(found[:2], "left") is None and table_of_link(TableInputs(Results(edits))) == []
