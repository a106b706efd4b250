"""The link between recall and edits: which rows make a pair, and the table and figure of pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinymem.report.figures.link import figure_of_link
from tinymem.report.figures.points import inputs_of
from tinymem.report.link import link_of, pairs_of
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
    return pairs_of(Results(list(edits), localization=list(localization)))


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
