"""What comes back, of seeds whose tests had other settings: lines of their own, and no mean over them."""

from __future__ import annotations

from typing import Any

import pytest
from report_rows import make_row

from tinymem.report.tables.catalogue import tables_of
from tinymem.report.tables.table import Table
from tinymem.results.collect import Results
from tinymem.results.row import MeasuredRow


def row_of(seed: int, after: float, method: str = "act", tests: tuple[str, ...] = ("relearn-forget",), **settings: Any) -> MeasuredRow:
    """A row with the share that returns, 0.4 for the model before the edit."""
    found = {test: {when: {"all": {"share": share}} for when, share in (("before", 0.4), ("after", after))} for test in tests}
    request = {"metrics": ["memorized"], "ks": [], "robustness": {"tests": list(tests), "batch_size": 32, **settings}}
    return make_row(method, seed=seed, options={"ratio": 0.1}, config={"ratio": 0.1}, robustness=found, request=request)


def returns(rows: list[MeasuredRow]) -> Table:
    [table] = tables_of(Results(rows, []), ["returns"])
    return table


def test_seeds_that_were_tested_with_other_settings_are_not_averaged() -> None:
    short, long = {"steps": 1, "learning_rate": 0.5}, {"steps": 60, "learning_rate": 0.5}
    table = returns([row_of(0, 0.1, **short), row_of(1, 0.3, **short), row_of(2, 0.9, **long), make_row("zero")])
    found = {(row[1].text, row[2].text): row[-1].value for row in table.rows}
    assert found == {
        ("trained model", "tested with steps=1"): pytest.approx(40.0),
        ("trained model", "tested with steps=60"): pytest.approx(40.0),
        ("act", "ratio=0.1, tested with steps=1"): pytest.approx(20.0),
        ("act", "ratio=0.1, tested with steps=60"): pytest.approx(90.0),
    }


def test_rows_that_do_not_say_how_they_were_tested_are_apart_from_those_that_do() -> None:
    unsaid = make_row("act", seed=1, options={"ratio": 0.1}, config={"ratio": 0.1}, robustness=row_of(1, 0.3).robustness)
    table = returns([row_of(0, 0.1, steps=1), unsaid])
    assert [row[2].text for row in table.rows if row[1].text == "act"] == [
        "ratio=0.1, tested with batch_size=32, steps=1",
        "ratio=0.1, tested with batch_size=–, steps=–",
    ]


def test_equal_settings_are_one_line_whichever_tests_were_made() -> None:
    table = returns([row_of(0, 0.1, steps=1), row_of(1, 0.3, tests=("relearn-forget", "int8"), steps=1)])
    assert [[row[1].text, row[2].text] for row in table.rows] == [["trained model", ""], ["act", "ratio=0.1"]]
    assert [cell.value for cell in table.rows[1][4:]] == pytest.approx([20.0, 30.0])
