"""What `import tinymem` does for torch's threads: they wait passively, from Python as from the shell."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, environment

SAY = "import os; print(os.environ['OMP_WAIT_POLICY'])"


def import_in_this_order(modules: str, **variables: str) -> tuple[str, list[str]]:
    """The wait policy after importing the modules in a process of its own, and the warnings that were printed."""
    free = {name: value for name, value in environment().items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", f"{modules}; {SAY}"], env={**free, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), [line for line in done.stderr.splitlines() if "Warning:" in line]


@pytest.mark.processes
def test_threads_wait_passively() -> None:
    assert import_in_this_order("import tinymem") == ("passive", [])
    assert import_in_this_order("import tinymem", OMP_WAIT_POLICY="active") == ("active", [])


@pytest.mark.processes
def test_torch_that_was_imported_first_is_said_once(tmp_path: Path) -> None:
    fake = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    (tmp_path / "torch.py").touch()  # an empty one will do, and is quick
    policy, warned = import_in_this_order("import torch; import tinymem; import tinymem.errors; from tinymem import UserError", **fake)
    assert policy == "passive" and len(warned) == 1 and "import tinymem first" in warned[0]
    assert warned[0].startswith("<string>:1:"), "it names the line that imports tinymem"
    assert import_in_this_order("import torch; import tinymem", **fake, OMP_WAIT_POLICY="passive") == ("passive", [])


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_torch_after_tinymem(script: Path) -> None:
    imports = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    packages = [name.partition(".")[0] for name in names]
    assert "torch" not in packages or "tinymem" in packages[: packages.index("torch")]
