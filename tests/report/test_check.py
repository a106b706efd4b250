"""`tinymem check`: what lies inside and outside tolerance, what cannot be compared, and the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import tinymem

from tinymem.errors import UserError
from tinymem.report.check import StoredRow, columns, compare
from tinymem.report.tolerance import Tolerance, parse_rules, parse_tolerance, tolerance_of
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow
from tinymem.runs.pipeline import Run


@pytest.fixture
def golden(tiny_run: Run, tmp_path: Path) -> Path:
    """The tiny run's rows, stored."""
    done = tinymem("check", tiny_run.path, "--write", tmp_path / "golden.json")
    assert done.code == 0 and "8 rows" in done.out, done.err
    return tmp_path / "golden.json"


def change(golden: Path, column: str, value: Any, row: int = 0) -> None:
    """Change one stored value; nested columns as a.b.c."""
    content = json.loads(golden.read_text())
    place = content["rows"][row]
    *parents, last = column.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value(place[last]) if callable(value) else value
    golden.write_text(json.dumps(content))


def test_a_run_reproduces_itself(tiny_run: Run, golden: Path) -> None:
    done = tinymem("check", tiny_run.path, "--against", golden)
    assert done.code == 0 and "8 rows" in done.out and ", 0 outside tolerance" in done.out
    stored = json.loads(golden.read_text())["rows"]
    assert not {"seconds", "peak_mb", "device", "versions", "run"} & set(stored[0])
    assert "metrics_after.extraction-strength.all.mean" in columns(stored[0])
    assert not any(name.endswith((".count", ".rows")) for name in columns(stored[0]))


@pytest.mark.parametrize(
    ("column", "by", "inside"),
    [
        ("memorized_after", 0.04, True),
        ("memorized_after", -0.06, False),
        ("performance_after", 0.004, True),
        ("performance_after", 0.006, False),
        ("rows_scored", 1, False),
        ("metrics_after.extraction-strength.all.mean", 0.06, False),
        ("metrics_after.accuracy.all.share", 0.004, True),
        ("metrics_after.accuracy.all.share", 0.006, False),
    ],
)
def test_tolerances(tiny_run: Run, golden: Path, column: str, by: float, inside: bool) -> None:
    change(golden, column, lambda value: value + by)
    done = tinymem("check", tiny_run.path, "--against", golden)
    assert done.code == (0 if inside else 1), done.out
    assert (column.split(".")[-1] in done.out.replace("\n", "")) == (not inside)


def test_relative_tolerance(tiny_run: Run, golden: Path) -> None:
    for factor, code in ((1.01, 0), (1.02, 1)):
        change(golden, "perplexity_after", lambda value, factor=factor: value * factor)
        assert tinymem("check", tiny_run.path, "--against", golden).code == code


def test_tolerances_are_overridden(tiny_run: Run, golden: Path) -> None:
    change(golden, "memorized_after", lambda value: value + 0.2)
    command = ("check", tiny_run.path, "--against", golden)
    assert tinymem(*command).code == 1
    assert tinymem(*command, "--tolerance", "memorized_*=0.25").code == 0
    content = json.loads(golden.read_text())
    golden.write_text(json.dumps({**content, "tolerances": {"memorized_*": "0.25"}}))
    assert tinymem(*command).code == 0
    assert tinymem(*command, "--tolerance", "memorized_after=0.1").code == 1  # the command line comes last


def test_missing_and_extra_rows(tiny_run: Run, golden: Path) -> None:
    change(golden, "options.ratio", 0.5)
    done = tinymem("check", tiny_run.path, "--against", golden)
    assert done.code == 1 and "act(ratio=0.5)" in done.out and "absent" in done.out and "1 row of the run not stored" in done.out


def row(**values: Any) -> MeasuredRow:
    return read_measured({"method": "a", "artifact": "noise", "status": "ok", **values}, "row")


def stored(**values: Any) -> StoredRow:
    return StoredRow(row(**values), {"method": "a", "artifact": "noise", "status": "ok", **values})


def test_values_that_are_none_or_absent() -> None:
    half = {"memorized_after": 0.5}
    for other in ({"memorized_after": None}, {}, {**half, "status": "failed"}):
        assert len(compare([stored(**half)], [row(**other)]).differences) == 1
        assert len(compare([stored(**other)], [row(**half)]).differences) == len(other and half)
    assert compare([stored(**half)], [row(**half)]).differences == []
    assert [d.found for d in compare([stored(robustness={"int8": 1})], [row()]).differences] == ["absent"]


def test_models_are_told_apart() -> None:
    values = [{"memorized_after": share, "seed": seed} for seed, share in ((0, 0.5), (1, 0.9))]
    alike = [{**v, "seed": 0, "model_id": str(n)} for n, v in enumerate(values)]
    for those in (values, alike):
        assert compare([stored(**v) for v in those], [row(**v) for v in those[::-1]]).differences == []
    with pytest.raises(UserError, match="got the same one twice"):
        compare([stored(**values[0])] * 2, [row(**v) for v in values])


def test_rules() -> None:
    assert parse_tolerance("2%", "") == Tolerance(0.02, relative=True) and parse_tolerance("0.05", "") == Tolerance(0.05)
    rules = parse_rules(["metrics_after.memorized.k=5.all.share=0.5"])
    assert tolerance_of("metrics_after.memorized.k=5.all.share", rules) == Tolerance(0.5)
    assert tolerance_of("rows_scored", ()) == Tolerance(0) and str(tolerance_of("perplexity_after", ())) == "2%"
    assert Tolerance(0.1).allows(1, 1.1) and not Tolerance(0.1).allows(1, 1.11) and not Tolerance(5.0).allows(True, 0)
    assert Tolerance(0.1, relative=True).allows(-10, -10.9) and not Tolerance(0).allows("ok", "failed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got neither"),
        (["--against", "a", "--write", "b"], "got both"),
        (["--against", "nothing.json"], "expected a file of stored rows at nothing.json"),
        (["--against", "x.json", "--tolerance", "memorized"], "expected a tolerance such as"),
        (["--against", "x.json", "--tolerance", "memorized=lots"], "got 'lots'"),
    ],
)
def test_bad_input(tiny_run: Run, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in tinymem("check", tiny_run.path, *words).one_line_error()
    assert not list(tmp_path.iterdir())


def test_broken_files(tiny_run: Run, tmp_path: Path) -> None:
    for text, message in (
        ("{", "expected JSON"),
        ("[]", "format 1"),
        ('{"format": 1, "rows": [{"method": "a"}]}', "expected a row with artifact, status"),
        ('{"format": 1, "rows": [], "tolerances": [1]}', "expected tolerances as"),
    ):
        (tmp_path / "bad.json").write_text(text)
        assert message in tinymem("check", tiny_run.path, "--against", tmp_path / "bad.json").one_line_error()
    assert "found none" in tinymem("check", tmp_path / "nowhere", "--write", tmp_path / "x.json").one_line_error()


def test_any_results_folder(tiny_run: Run, golden: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name)
    assert tinymem("check", tmp_path / "runs", "--against", golden).code == 0  # a folder of runs
    rows = {path.name: path.read_text() for path in (tiny_run.path / "results").iterdir()}
    assert len(rows) == 4
    (tmp_path / "folder" / "results").mkdir(parents=True)
    for name, text in rows.items():
        (tmp_path / "folder" / "results" / name).write_text(text)
    stored = tmp_path / "folder.json"
    assert "8 rows" in tinymem("check", tmp_path / "folder", "--write", stored).out
    assert tinymem("check", tmp_path / "folder", "--against", stored).code == 0
