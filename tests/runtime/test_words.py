"""Durations and counts as people say them."""

from __future__ import annotations

import pytest

from tinymem.runtime.words import counted, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.004, "under 0.01 s"), (0.083, "0.08 s"), (0.4, "0.4 s"), (1, "1 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (61, "1 min 1 s"), (200, "3 min 20 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h"), (7560, "2.1 h"),
        (3600 * 1234.56, "1,234.6 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_is_singular_and_all_else_is_not() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
    assert counted(1, "pass", "passes") == "1 pass" and counted(3, "pass", "passes") == "3 passes"
