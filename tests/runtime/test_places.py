"""Where it runs: terminals without our characters, a notebook's shell, and users without a home."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import QUICKSTART, SMALLER, environment, sets, tinymem

from tinymem.data.text.tokens import cache_directory
from tinymem.errors import UserError
from tinymem.recipe.recipe import load_recipe
from tinymem.report.page import document
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import user_path
from tinymem.runtime.streams import SPELL, spell_what_streams_lack, to_ascii

NOTEBOOK = {"MPLBACKEND": "module://a_backend_that_is_not_installed"}
# A container's --user, of whom the system knows nothing.
UNKNOWN = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""
VERBS = """
import json, os, sys
from tinymem.cli import main as cli
for words in json.loads(sys.argv.pop()):
    sys.argv = ["tinymem", *words]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, words
    print("DONE", words[0], flush=True)
"""
NOWHERE = "/proc/nowhere"  # where not even root can write
PLACES: dict[str, tuple[str, str, dict[str, str | None]]] = {
    "LC_ALL=C, no home": ("ascii", "", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "HOME": None}),
    "ascii, a home that cannot be written": ("ascii", "", {"PYTHONIOENCODING": "ascii", "HOME": NOWHERE, **NOTEBOOK}),
    "cp1252, a user unknown to the system": (
        "cp1252",
        UNKNOWN,
        {"PYTHONIOENCODING": "cp1252", "HOME": NOWHERE, "USER": None, "LOGNAME": None},
    ),
}
OF_THE_USER = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TINYMEM_CACHE", "HF_HOME", "MPLCONFIGDIR", "LANG", "LC_ALL")


def variables_of(place: dict[str, str | None]) -> dict[str, str]:
    found = {**dict.fromkeys(OF_THE_USER), **place}
    return {name: value for name, value in {**environment(), **found}.items() if value is not None}


@pytest.mark.thorough
@pytest.mark.processes
@pytest.mark.parametrize("place", PLACES)
def test_every_verb_anywhere(place: str, tiny_run: Run, tmp_path: Path) -> None:
    """No traceback, and whoever runs a recipe has its report."""
    encoding, before, variables = PLACES[place]
    overrides = [*SMALLER, "mitigation.methods=[{random-neurons: {ratio: 0.1}}]"]
    runs = tmp_path / "runs\u2192\u00e9"
    run = runs / load_recipe(QUICKSTART, overrides).run_id()
    plain = ["report", run, "--format"]
    verbs = [
        ["--help"],
        ["run", QUICKSTART, *sets(overrides), "--device", "cpu", "--runs", runs],
        ["mitigate", tiny_run.checkpoint, "--method", "random-neurons", "--ratio", 0.2, "--out", runs / "edited"],
        ["evaluate", run / "checkpoint"],
        ["show", run],
        ["train", QUICKSTART, *sets(overrides), "--device", "cpu", "--runs", runs],
        ["sweep", runs / "sweep.yaml", "--jobs", 1, "--out", runs / "swept", "--device", "cpu"],
        *([*plain, output] for output in ("table", "markdown", "json")),
        [*plain, "png", "--out", tmp_path / "figures"],
        ["data", "inspect", run / "corpus", "--rows", 2],
    ]
    runs.mkdir()
    (runs / "sweep.yaml").write_text(f"name: s\ncheckpoints: {json.dumps(str(run))}\nmethods: [{{random-neurons: {{ratio: [0.3]}}}}]\n")
    words = json.dumps([[str(word) for word in verb] for verb in verbs])
    command = [sys.executable, "-c", before + VERBS, words]
    done = subprocess.run(command, env=variables_of(variables), capture_output=True, timeout=400, cwd=tmp_path)
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 0 and "Traceback" not in out + err, err
    assert [line.split()[1] for line in out.splitlines() if line.startswith("DONE")] == [verb[0] for verb in verbs]
    assert (run / "report.html").is_file() and (runs / "edited" / "model.safetensors").is_file()
    assert list((tmp_path / "figures").glob("*.png")) and "random-neurons" in out
    assert "runs->" in out and any((runs / "swept").rglob("*.json"))


@pytest.mark.processes
def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    command = [sys.executable, "-m", "tinymem", "evaluate"]
    for words, cwd in (([*command, folder], tmp_path), ([*command, "."], folder)):
        done = subprocess.run(words, env=environment(), capture_output=True, cwd=cwd)
        assert (
            done.returncode == 2 and b"expected names of files in UTF-8, got other bytes" in done.stderr and done.stderr.count(b"\n") == 1
        )


def test_what_a_stream_lacks_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, written in (("ascii", b"1 -> 2 +- 3 \\u00e9\\u4e2d"), ("cp1252", b"1 -> 2 \xb1 3 \xe9\\u4e2d"), ("utf-8", None)):
        bytes_ = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding=encoding))
        spell_what_streams_lack()
        print("1 → 2 ± 3 é中", end="", flush=True)
        assert bytes_.getvalue() == (written or "1 → 2 ± 3 é中".encode())
    assert to_ascii("60 → 2 – 1") == "60 -> 2 - 1" and json.loads('"' + to_ascii("\U0001f600") + '"') == "\U0001f600"
    assert "\udcff".encode("utf-8", SPELL) == b"\\udcff", "file names that are not UTF-8"


@pytest.mark.processes
def test_the_backend_of_a_notebook_stays_its_own() -> None:
    code = (
        "import os\nfrom tinymem.report.figures.svg import drawing\nwith drawing(): pass\n"
        "import matplotlib\nprint(os.environ['MPLBACKEND'], matplotlib.rcParams['backend'])"
    )
    variables = {**environment(), "MPLBACKEND": "svg"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["svg", "svg"]


@pytest.mark.training
@pytest.mark.filterwarnings("always:no .*report.html")
def test_a_page_that_fails_costs_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", QUICKSTART, *sets([*SMALLER, "mitigation.methods=[{random-neurons: {ratio: 0.1}}]"]), "--runs", tmp_path)

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("no page today")

    with monkeypatch.context() as patch:
        patch.setattr(document, "write_html", broken)
        done = tinymem(*words)
    assert done.code == 1 and "random-neurons" in done.out and "Traceback" not in done.err
    assert "no page today" in done.err and "tries again" in done.err and not list(tmp_path.glob("*/report.html"))
    again = tinymem(*words)
    assert again.code == 0 and list(tmp_path.glob("*/report.html"))


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.delenv(name, raising=False)


def no_home(*_: object) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_cache_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "TINYMEM_CACHE", "XDG_CACHE_HOME")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    own = tmp_path / f"tinymem-{os.getuid()}"
    for home in (tmp_path / "home", tmp_path / "file"):
        monkeypatch.setenv("HOME", str(home))
        (tmp_path / "file").touch()
        assert cache_directory() == (home / ".cache" / "tinymem" if home.name == "home" else own)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_directory() == own and own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    own.rename(tmp_path / f"tinymem-{os.getuid()}")
    with pytest.raises(UserError, match="set TINYMEM_CACHE"):
        cache_directory()
    monkeypatch.setenv("TINYMEM_CACHE", "named")
    assert cache_directory() == Path("named")


def test_paths_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/text") == Path("/somewhere/text") and user_path("text/~") == Path("text/~")
    assert user_path("~nobody-of-this-name/text") == Path("~nobody-of-this-name/text")
