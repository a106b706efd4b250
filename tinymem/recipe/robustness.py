"""Names of the tests whether a mitigation's effect lasts, in the order of their columns."""

from __future__ import annotations

from typing import Literal, get_args

Test = Literal["relearn-forget", "relearn-retain", "int8", "int4", "longer", "shorter", "perturbed"]
TESTS: tuple[Test, ...] = get_args(Test)
