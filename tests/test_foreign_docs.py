"""The commands of docs/foreign-models.md run as they stand, on a tiny model that knows some rows by heart."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from by_heart import KNOWN, by_heart
from helpers import ROOT, tinymem


@pytest.mark.training
@pytest.mark.filterwarnings("ignore:.*rows to forget are not memorized")
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = by_heart(tmp_path / "MODEL", torch.bfloat16)
    model.jsonl("retain", model.retain)
    texts = [model.text(row) for row in torch.cat([model.others, model.known])]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    page = (ROOT / "docs" / "foreign-models.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    [recipe] = re.findall(r"```yaml\n# sweep.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "sweep.yaml").write_text(recipe)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [words[1] for words in commands] == ["data", "mitigate", "evaluate", "landscape", "sweep"]
    for words in commands:
        done = tinymem(*words[1:])
        assert done.code == 0, (words, done.err)
    assert "sweep: 7 runs on 1 model, 1 of them here" in done.out
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == KNOWN
    assert {path.name for path in (tmp_path / "edited").iterdir()} == {"act", "durable"}
