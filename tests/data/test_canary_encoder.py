"""Canaries are encoded in one place, for planting, exposure and non-members alike."""

from __future__ import annotations

from pathlib import Path

import tinymem

PACKAGE = Path(tinymem.__file__).parent


def test_canaries_have_one_encoder() -> None:
    texts = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert {name for name, text in texts.items() if ".offsets" in text or "Encode = " in text} == {"data/artifacts/canary.py"}
    assert {name for name, text in texts.items() if "canary_encoder" in text} == {"data/artifacts/canary.py", "evaluation/exposure.py"}
