"""The contract that `tinymem.testing.check_artifact` holds artifact kinds to: ours hold it, and what breaks it is said."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal

import numpy as np
import pytest

from tinymem.data.artifact import Artifact, artifact
from tinymem.data.planted import Planted
from tinymem.recipe.kinds import ARTIFACTS
from tinymem.testing import check_artifact, tiny_corpus


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [("noise", {"rows": 16}), ("backdoor", {"within": 14}), ("duplication", {"rows": 16, "copies": 2}), ("canary", {"rows": 4})],
)
def test_built_in_kinds(kind: str, options: dict[str, Any]) -> None:
    check_artifact(kind, **options)


@pytest.mark.parametrize(
    ("how", "message"),
    [("random", "planted two sets of rows"), ("held out", "no planted row is trained on"), ("test row", "a clean one or a test row")],
)
def test_what_breaks_it(how: str, message: str) -> None:
    moves, tests = count(1), tiny_corpus({"kind": "noise", "rows": 4}).tests

    class Broken(Artifact):
        """Goes wrong as it is told."""

        kind: Literal["broken"] = "broken"

        def plant(self, pool: Any) -> Planted:
            clean = pool.draw(4, pool.generator("broken"), "broken")
            ids = np.roll(clean, next(moves) if how == "random" else 1, axis=1)
            if how == "test row":
                ids = next(iter(tests.values()))[:4]
            copies = np.full(4, int(how != "held out"))
            return Planted(ids, clean, np.zeros_like(copies), copies)

    with ARTIFACTS.temporary(), pytest.raises(AssertionError, match=message):
        artifact(Broken)
        check_artifact("broken")
