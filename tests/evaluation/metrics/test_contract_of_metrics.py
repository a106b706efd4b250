"""The contract that `tinymem.testing.check_metric` holds metrics to: ours hold it, and what breaks it is said."""

from __future__ import annotations

from itertools import count

import pytest

from tinymem.evaluation.metric import METRICS, MetricColumn, metric
from tinymem.testing import check_metric

DOCUMENTED = "Formula: a\nUnit: b\nDirection: c\nRange: d\nSource: e"


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS.names())
def test_built_in_metrics(name: str) -> None:
    check_metric(name)


@pytest.mark.parametrize(
    ("documented", "values", "path", "message"),
    [
        ("Formula: a", [1.0] * 9, (), "the docstring does not say Unit, Direction, Range, Source"),
        (DOCUMENTED, count(), (), "the same model gave two results"),
        (DOCUMENTED, [{"all": "x"}] * 9, ("all",), r"no number at \('all',\) of column 'mine'"),
    ],
)
def test_what_breaks_it(documented: str, values: object, path: tuple[str, ...], message: str) -> None:
    given = iter(values)

    def broken(view, kind):
        return next(given)

    broken.__doc__ = documented
    with METRICS.temporary(), pytest.raises(AssertionError, match=message):
        metric("broken", column=MetricColumn("mine", path))(broken)
        check_metric("broken")
