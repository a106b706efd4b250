"""Tables of cost over rows of several devices: seconds of one are never averaged with those of another, and each is named once."""

from __future__ import annotations

import pytest
from report_rows import make_row

from tinymem.recipe.paper import GRID, RUNS
from tinymem.report.tables.cost import projection_table, spent_by_phase
from tinymem.results.collect import Results

H100 = {"device": "NVIDIA H100 80GB HBM3", "device_type": "cuda"}


def test_the_projection_is_of_each_device_by_itself() -> None:
    rows = [make_row("act", seed=0, seconds=10.0), make_row("act", seed=1, seconds=30.0)]
    [one] = projection_table(Results(rows, []))
    assert [column.name for column in one.columns][:2] == ["method", "mean seconds"] and len(one.rows) == len(GRID) + 1
    fast = [make_row("act", seed=2, seconds=2.0, **H100), make_row("ig", seed=2, seconds=4.0, **H100)]
    [both] = projection_table(Results([*rows, *fast], []))
    assert [column.name for column in both.columns][:3] == ["method", "machine", "mean seconds"]
    found = {(row[0].text, row[1].text): row[2:] for row in both.rows}
    assert found["act", "cpu (2 threads)"][0].value == 20.0 and found["act", "NVIDIA H100 80GB HBM3"][0].value == 2.0
    assert found["ig", "cpu (2 threads)"][0].value is None
    slow, quick = (found["sum of those measured", device][-1].value for device in ("cpu (2 threads)", "NVIDIA H100 80GB HBM3"))
    assert slow == pytest.approx(20 * RUNS["act"] / 3600) and quick == pytest.approx((2 * RUNS["act"] + 4 * RUNS["ig"]) / 3600)
    assert "not averaged" in both.notes[-1]


def test_a_row_without_a_device_is_on_the_processor_of_the_others() -> None:
    trained = [make_row("none", seed=seed, training_seconds=60.0, device=device) for seed, device in ((0, "cpu (1 threads)"), (1, None))]
    [machine] = spent_by_phase(Results([], trained))["training"].machines
    assert machine.name == "cpu (1 threads)"
    [only] = spent_by_phase(Results([], trained[1:]))["training"].machines
    assert only.name == "cpu"
