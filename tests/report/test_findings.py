"""Findings about localization from stored rows, and the picture of a confusion matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinymem.localization.agreement import over_scorers
from tinymem.report.figures.confusion import confusions
from tinymem.report.figures.points import inputs_of
from tinymem.report.tables.findings import PUBLISHED, tables_of_findings
from tinymem.report.tables.localization import localization_tables
from tinymem.report.tables.registry import TableInputs
from tinymem.results.collect import Results
from tinymem.results.row import LocalizationRow

SCORERS = ("hard-concrete", "slim", "zero", "ig", "act", "random-neurons")
BLANK = LocalizationRow(method="act", artifact="sequences", status="ok", unit="neuron", model_id="m", model_name="tiny", sequences=4)


def inj(method, ratio, score, scope="layer"):
    values = [score - 0.02, score + 0.02, score, score]
    return replace(
        BLANK, id=f"{method}{ratio}{scope}", benchmark="inj", method=method, ratio=ratio, top=ratio, scope=scope, score=score, values=values
    )


def drop(method, own, others, **more):
    rows = [("self_accuracy", own), ("other_accuracy", others)]
    values = {"self_accuracy": [own] * 4, "other_accuracy": [others] * 4}
    return [
        replace(BLANK, id=f"d{method}", benchmark="del", method=method, ratio=0.05, score_name=n, score=s, values=values[n], **more)
        for n, s in rows
    ]


def table(rows, name):
    return {t.name: t for t in tables_of_findings(TableInputs(Results([], localization=rows)))}.get(name)


@pytest.mark.slow
def test_rankings_are_compared_with_the_published_column_and_between_benchmarks():
    ours = dict(zip(SCORERS, (0.666, 0.753, 0.654, 0.63, 0.446, 0.011), strict=True))
    erased = dict(zip(SCORERS, (-0.5, -0.6, -0.4, -0.3, -0.2, -0.01), strict=True))
    rows = [inj(name, 0.01, score) for name, score in ours.items()]
    rows += [row for name, own in erased.items() for row in drop(name, own, own / 10)]
    lines = {row[0].text: row for row in table(rows, "findings").rows}
    published = lines["ranks as GPT-2 in the published Table 3"]
    expected = over_scorers(np.array(list(ours.values())), np.array([PUBLISHED[0.01][name] for name in SCORERS]))
    assert published[4].value == pytest.approx(expected.rho) and round(expected.rho, 2) == 0.94 and published[3].text == "6"
    assert published[5].text == f"{expected.low:+.2f} to {expected.high:+.2f}" and published[6].text == "+0.94 to +0.94"
    assert lines["INJ and DEL rank alike"][4].value == pytest.approx(1)
    assert lines["what erases more spares more of the others"][4].value == pytest.approx(-1), "here what erases more costs others more"


def test_differences_are_paired_by_sequence():
    rows = [inj("act", 0.01, 0.4), inj("act", 0.001, 0.7), inj("act", 0.01, 0.3, "model")]
    lines = {row[0].text: row for row in table(rows, "findings").rows}
    fewer, scope = lines["recall of fewer injected neurons"], lines["recall per layer less global"]
    assert fewer[4].text == "+30.0" and fewer[6].text == "+30.0 to +30.0" and fewer[2].text == "0.1 % less 1 %"
    assert scope[4].text == "+10.0" and scope[3].text == "act"
    assert table([replace(row, unit="weight") for row in rows], "findings") is None


def test_a_scorer_whose_options_differ_between_ratios_is_compared_with_itself():
    """As in the paper's recipes; a method that is there twice at the other ratio is not, since neither is its counterpart."""
    small = replace(inj("hard-concrete", 0.001, 0.7), options={"penalty": 1000})
    large = [replace(inj("hard-concrete", 0.01, 0.4), id=f"h{penalty}", options={"penalty": penalty}) for penalty in (100, 200)]
    (line,) = table([small, large[0]], "findings").rows
    assert line[3].text == "hard-concrete penalty 1000" and line[4].text == "+30.0"
    assert table([small, *large], "findings") is None


def test_tried_options_are_summed_up_and_count_nowhere_else():
    rows = [r for k, own in enumerate((-0.4, -0.1, -0.3)) for r in drop("slim", own, 0.0, artifact="development", options={"penalty": k})]
    (line,) = table(rows, "tuning").rows
    assert [cell.text for cell in line] == ["slim", "tiny", "5 %", "penalty 0", "3", "-40.0", "-30.0", "-10.0"]
    assert table(rows, "findings") is None


def test_the_picture_is_of_the_scorer_that_erases_most():
    matrix = {"targets": ["a", "b"], "rows": ["a", "b"], "changes": [[-0.5, 0.0], [-0.1, None]]}
    rows = [drop("ig", -0.5, 0.0, confusion=matrix)[0], drop("act", -0.1, 0.0, confusion={**matrix, "changes": [[0, 0], [0, 0]]})[0]]
    (figure,) = confusions(inputs_of(Results([], localization=rows)))
    assert {line["panel"] for line in figure.lines} == {"ig, 5 % dropped"}
    assert [line["change"] for line in figure.lines] == [-50, 0, -10, None]
    assert len(figure.draw(figure.lines).axes) == 2


def test_types_of_the_weights_are_told_apart():
    one, other = [inj("act", 0.1, 0.9), inj("act", 0.1, 0.7, "model")], [inj("act", 0.1, 0.8), inj("act", 0.1, 0.2, "model")]
    other = [replace(row, id=f"b{row.id}", dtype="bfloat16") for row in other]
    tables = localization_tables([*one, *other])
    assert [t.title for t in tables] == ["INJ: 10 % injected, tiny, float32", "INJ: 10 % injected, tiny, bfloat16"]
    assert len({t.key for t in tables}) == 2, "they are written to files of their own"
    found = {line[1].text: line[4].text for line in table([*one, *other], "findings").rows}
    assert found == {"tiny, float32": "+20.0", "tiny, bfloat16": "+60.0"}
    assert [t.title for t in localization_tables(one)] == ["INJ: 10 % injected, tiny"]


def measured(rows, /, **settings):
    return [replace(row, id=f"{row.id}{settings}", settings=settings) for row in rows]


def test_options_of_a_benchmark_are_told_apart_and_never_paired():
    """Each INJ is ranked beside each DEL; fewer injected neurons are compared within the same options alone."""
    names = ("act", "ig", "zero")
    few = [inj(name, 0.001, 0.3 + i / 10) for i, name in enumerate(names)]
    many = [inj(name, 0.01, 0.6 - i / 10) for i, name in enumerate(names)]
    erased = [row for i, name in enumerate(names) for row in drop(name, -0.1 - i / 10, 0.0)]
    rows = [*measured(few, steps=200), *measured(many, steps=200), *measured(few, steps=3), *measured(erased, rows=50)]
    lines = table([*rows, *measured(erased, rows=5)], "findings").rows
    fewer = [(line[2].text, line[4].text) for line in lines if line[0].text == "recall of fewer injected neurons"]
    assert fewer == [("0.1 % less 1 %, steps 200", text) for text in ("-30.0", "-10.0", "+10.0")]
    alike = {line[2].text: line[4].value for line in lines if line[0].text == "INJ and DEL rank alike"}
    assert alike == {
        f"{ratio} % injected, steps {steps}, 5 % dropped, rows {count}": pytest.approx(rho)
        for ratio, steps, rho in (("0.1", 200, 1), ("1", 200, -1), ("0.1", 3, 1))
        for count in (50, 5)
    }
    alone = {line[2].text for line in table([*few, *erased], "findings").rows if line[0].text == "INJ and DEL rank alike"}
    assert alone == {"0.1 % injected, 5 % dropped"}, "where nothing differs, nothing is said"


def test_results_that_nothing_tells_apart_are_left_out_with_a_word():
    rows = [inj("act", 0.1, 0.9), inj("act", 0.1, 0.7, "model")]
    whole = [replace(row, id=f"other{row.id}") for row in rows]
    assert [line[4].text for line in table([*rows, *whole], "findings").rows] == ["+20.0"], "the same numbers twice are one result"
    found = table([*rows, replace(rows[0], id="twin", score=0.1)], "findings")
    assert found.rows == () and "of the same scorer: act (act0.1), act (twin)." in found.notes[1]


def test_scorers_of_one_method_are_paired_by_their_options():
    names = ("act", "ig", "zero")
    variants = [replace(inj("slim", 0.01, score), id=f"i{k}", options={"penalty": k}) for k, score in ((1, 0.1), (2, 0.9))]
    dropped = [replace(r, id=f"s{k}", options={"penalty": k}) for k, own in ((2, -0.9), (1, -0.1)) for r in drop("slim", own, 0.0)]
    rows = [*variants, *dropped, *(inj(n, 0.01, 0.2 + i / 10) for i, n in enumerate(names))]
    rows += [row for i, name in enumerate(names) for row in drop(name, -0.2 - i / 10, 0.0)]
    (line,) = [line for line in table(rows, "findings").rows if line[0].text == "INJ and DEL rank alike"]
    assert line[4].value == pytest.approx(1) and line[3].text == "5"


def test_tried_options_are_those_of_one_way_to_measure():
    rows = [
        r for count in (5, 9) for own in (-0.4, -0.1) for r in measured(drop("slim", own, 0.0, artifact="development"), development=count)
    ]
    assert [(line[1].text, line[4].text) for line in table(rows, "tuning").rows] == [
        ("tiny, development 5", "2"),
        ("tiny, development 9", "2"),
    ]


def test_each_way_to_measure_has_a_picture_of_its_own():
    matrix = {"targets": ["a"], "rows": ["a"], "changes": [[-0.5]]}
    rows = drop("ig", -0.5, 0.0, confusion=matrix)[:1]
    figures = confusions(inputs_of(Results([], localization=[*measured(rows, rows=50), *measured(rows, rows=5)])))
    assert sorted(figure.title for figure in figures) == [f"Confusion of memorized rows, tiny, rows {n}" for n in (5, 50)]
