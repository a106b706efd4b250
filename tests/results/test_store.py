"""Results of a sweep on disk: exact, whole, each once, wherever compaction is cut off; claims between processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import environment

from tinymem.errors import UserError
from tinymem.results import store
from tinymem.results.parquet import parts_of
from tinymem.results.row import MeasuredRow, MitigationRow, Status
from tinymem.results.store import Index, compact, read_rows, write_failures, write_run
from tinymem.sweep.claims import Claims


def rows_of(run: str, status: Status = "ok", finished: str = "t", **more: Any) -> list[MeasuredRow]:
    """Two rows with what JSON can hold: nested, null, absent in one of them, whole numbers and others in one column."""
    row = MitigationRow(id=run, status=status, finished=finished, method="act", artifact="noise", config={"ratio": 0.1, "betas": [1, 2.5]})
    copies = {"1": {"share": 0.5, "count": 1, "rows": 2}}
    first = replace(row, memorized_after=1, memorized_by_copies_before=copies, **more)
    return [first, replace(row, artifact="backdoor", memorized_after=0.25, message="é\n", **more)]


def filled(folder: Path, runs: int, start: int = 0) -> dict[str, list[MeasuredRow]]:
    written = {f"{n:04d}": rows_of(f"{n:04d}") for n in range(start, start + runs)}
    for run, rows in written.items():
        write_run(folder, run, rows)
    return written


def flat(written: dict[str, list[MeasuredRow]]) -> list[MeasuredRow]:
    return [row for run in sorted(written) for row in written[run]]


def test_compaction_keeps_every_row_exactly(tmp_path: Path) -> None:
    written = filled(tmp_path, 5)
    assert read_rows(tmp_path) == flat(written)
    assert compact(tmp_path) == 5
    assert not list((tmp_path / "results").iterdir()) and not list((tmp_path / "compacting").iterdir())
    written |= filled(tmp_path, 3, start=5)
    assert read_rows(tmp_path) == flat(written)
    compact(tmp_path)
    assert read_rows(tmp_path) == flat(written) and len(parts_of(tmp_path)) == 2
    table = pq.read_table(parts_of(tmp_path)[0])  # flat columns for other tools
    assert table["memorized_after"].to_pylist() == [1.0, 0.25] * 5 and table["artifact"].to_pylist()[:2] == ["noise", "backdoor"]
    assert table["config"].to_pylist()[0] == '{"betas":[1,2.5],"ratio":0.1}'


def test_newer_rows_win_wherever_they_are(tmp_path: Path) -> None:
    index = Index(tmp_path)
    write_run(tmp_path, "a", rows_of("a", "failed", "1"))
    compact(tmp_path)
    assert index.find("a") == store.Known("failed", "1") and index.find("b") is None
    write_run(tmp_path, "a", rows_of("a", "timeout", "2"))
    assert index.find("a") == store.Known("timeout", "2") == index.all()["a"]
    compact(tmp_path)
    assert index.find("a") == store.Known("timeout", "2") == index.all()["a"]
    write_run(tmp_path, "a", rows_of("a", "ok", "3"))
    compact(tmp_path)
    assert index.find("a") == store.Known("ok", "3") and read_rows(tmp_path) == rows_of("a", "ok", "3")


class Cut(Exception):
    """Where the process dies."""


@pytest.mark.parametrize("step", range(12))
def test_compaction_cut_off_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Every change of the file system may be the last one: no run is lost then, none doubled, and the next compaction mends it."""
    written = filled(tmp_path, 2)
    compact(tmp_path)
    written |= filled(tmp_path, 3, start=1)  # one of them is done again
    left = [step]

    def counted(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            compact(tmp_path)
        except Cut:
            assert left[0] < 0
        else:
            assert step >= 8, "the cut came too late to test anything"
    assert read_rows(tmp_path) == flat(written)
    assert set(Index(tmp_path).all()) == set(written) and all(Index(tmp_path).find(run) for run in written)
    compact(tmp_path)
    assert read_rows(tmp_path) == flat(written) and not list((tmp_path / "compacting").iterdir())


def test_a_run_that_is_done_again_during_compaction_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, "a", rows_of("a", "failed", "1"))
    original = store.write_part

    def meanwhile(folder: Path, runs: Any) -> None:
        original(folder, runs)
        write_run(tmp_path, "a", rows_of("a", "ok", "2"))

    monkeypatch.setattr(store, "write_part", meanwhile)
    compact(tmp_path)
    assert read_rows(tmp_path) == rows_of("a", "ok", "2")


def test_many_small_parts_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SMALL_PARTS", 3)
    written: dict[str, list[MeasuredRow]] = {}
    index = Index(tmp_path)
    for n in range(9):
        written |= filled(tmp_path, 2, start=n)  # each overlaps with the one before
        compact(tmp_path)
        assert len(parts_of(tmp_path)) <= 3
        assert read_rows(tmp_path) == flat(written) and set(index.all()) == set(written)


@pytest.mark.thorough
@pytest.mark.processes
def test_readers_beside_compaction(tmp_path: Path) -> None:
    """Another process writes and compacts all the time; whoever reads meanwhile sees every run that was there before."""
    written = filled(tmp_path, 40)
    program = (
        "import random, sys\nfrom pathlib import Path\nfrom tinymem.results import store\nstore.SMALL_PARTS = 2\n"
        f"folder = Path({str(tmp_path)!r})\nrows = store.read_rows(folder)\n"
        "by_run = {row['id']: [r for r in rows if r['id'] == row['id']] for row in rows}\n"
        "for n in range(60):\n    store.compact(folder)\n"
        "    for run in random.Random(n).sample(sorted(by_run), 5): store.write_run(folder, run, by_run[run])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment())
    index, looks = Index(tmp_path), 0
    while process.poll() is None:
        assert read_rows(tmp_path) == flat(written)
        assert index.find(random.choice(sorted(written))) is not None
        looks += 1
    assert process.returncode == 0 and looks > 3


def test_failures(tmp_path: Path) -> None:
    write_run(tmp_path, "a", rows_of("a"))
    assert write_failures(tmp_path) == 0 and not (tmp_path / "failures.jsonl").exists()
    write_run(tmp_path, "b", rows_of("b", "failed", traceback="Traceback: here"))
    compact(tmp_path)
    write_run(tmp_path, "c", rows_of("c", "timeout"))
    assert write_failures(tmp_path) == 2
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert len(lines) == 2 and "Traceback: here" in lines[0] and '"status": "timeout"' in lines[1]


@pytest.mark.processes
def test_claims_end_with_their_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom tinymem.sweep.claims import Claims\n"
        f"claims = Claims(Path({str(tmp_path)!r}))\nClaims(Path({str(tmp_path)!r}))\n"
        "print(claims.take('one'), claims.take('two'), flush=True)\nclaims.release('two')\nprint('released', flush=True)\ntime.sleep(100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["True True\n", "released\n"]
    claims = Claims(tmp_path)
    assert not claims.take("one") and claims.take("two") and claims.take("three")
    process.kill()
    process.communicate()
    assert claims.take("one")


def test_bad_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder with results/ or parquet/"):
        read_rows(tmp_path)
    (tmp_path / "sweep.yaml").write_text("name: begun\n")
    with pytest.raises(UserError, match="found none yet; start it again"):
        read_rows(tmp_path)
    filled(tmp_path, 1)
    (tmp_path / "results" / "0000.json").write_text("{")
    with pytest.raises(UserError, match="delete the file"):
        read_rows(tmp_path)
    (tmp_path / "results" / "0000.json").unlink()
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "part-000001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="expected Parquet in"):
        read_rows(tmp_path)
