"""docs/own-text.md: the guide runs as it is written, on a small text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from data_text import words
from helpers import ROOT, sets, tinymem

from tinymem.data.manifest import read_manifest

GUIDE = (ROOT / "docs" / "own-text.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].split()
    for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("tinymem ")
]
TINY = sets(["data.row_tokens=32", "data.max_rows=150", "data.test_rows=20", "artifacts=[duplication: {rows: 6, copies: 4}]",
             "model.n_embd=16", "training.epochs=1", "evaluation.prompt=10", "evaluation.match=10", "mitigation.methods=act"])  # fmt: skip


def expanded(words: list[str], place: Path) -> list[str]:
    """As a shell expands the words."""
    return [str(found) for word in words for found in ([*place.glob(word)] if "*" in word else [word])]


@pytest.mark.processes
@pytest.mark.training
def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text("".join(words(200)))
    assert [command[1] for command in COMMANDS] == ["init", "run", "report", "data", "run", "cache", "cache"]
    stated = yaml.safe_load(re.search(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)[1])["data"]  # type: ignore[index]
    for command in COMMANDS:
        if command[1] == "report":
            next(Path("runs").glob("text-*")).rename("runs/text-0")
        further = [*TINY, *sets([f"data.license={stated['license']}"])] if command[1] == "run" else []
        done = tinymem(*expanded(command[1:], tmp_path), *further, *(["--device", "cpu"] if further else []))
        assert done.code == 0, f"{' '.join(command)}\n{done.out}{done.err}"
        if command == ["tinymem", "cache"]:
            assert "text.txt" in done.out and "tokens/" in done.out
    sizes = sorted(read_manifest(folder).vocab_size for folder in Path("runs").glob("*/corpus"))
    assert sizes[0] == 257 < sizes[1] <= 4096
    assert all("License: cc-by-4.0. Whose text" in (folder / "README.md").read_text() for folder in Path("runs").glob("*/corpus"))
