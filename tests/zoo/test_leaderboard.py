"""The leaderboard: choice and order of its lines, the page in docs/, a method of one's own, and lines that are run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, tinymem
from report_rows import make_row, write_results

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.sweep import parse_sweep
from tinymem.runtime.files import file_sha256
from tinymem.sweep.run import open_sweep
from tinymem.sweep.task import Worker
from tinymem.zoo.board_runs import sample
from tinymem.zoo.catalogue import entry_of, names_in, weights_of
from tinymem.zoo.curves import trained_in
from tinymem.zoo.document import reproduction_page
from tinymem.zoo.leaderboard import leaderboard_page, standings
from tinymem.zoo.stored import merged, store_rows, stored_rows

WEIGHTS = {"one": "w1", "two": "w2"}


@pytest.mark.slow
def test_the_pages_in_docs_are_current() -> None:
    docs, zoo = ROOT / "docs", ROOT / "zoo"
    table = [row for name in ("table1", "table2") if (path := docs / f"{name}.parquet").is_file() for row in stored_rows(path)]
    more = stored_rows(docs / "leaderboard.parquet")
    entries = [entry_of(zoo / name) for name in names_in(zoo)]
    assert leaderboard_page([*table, *more], entries, weights_of(zoo)) == (docs / "leaderboard.md").read_text(encoding="utf-8")
    assert reproduction_page(table, trained_in(zoo), stored_rows(docs / "slices.parquet")) == (docs / "reproduction.md").read_text(
        encoding="utf-8"
    )


def test_a_methods_best_run_is_that_with_the_lowest_score() -> None:
    """M - P by hand: 40 of 100 rows before, accuracy 0.97 before."""
    rows = [
        make_row("act", after=4, performance=0.97, weights="w1", options={"ratio": 0.1}),  # -90
        make_row("act", after=0, performance=0.873, weights="w1", options={"ratio": 0.2}),  # -100 + 10 = -90, less memorized
        make_row("zero", after=0, performance=0.97, weights="w1"),  # -100
        make_row("act", after=20, performance=0.97, weights="w2"),  # -50
        make_row("act", after=0, performance=0.97, weights="w1", protocol="reference"),
        make_row("act", after=0, performance=0.97, weights="of another model"),
        make_row("act", after=0, performance=0.97, weights="w1", status="failed"),
        make_row("none", after=40, performance=0.97, weights="w1"),
    ]
    found = standings(rows, WEIGHTS)
    assert [(line.name, line.setting.options, round(line.score, 6)) for line in found["one"]] == [
        ("zero", "", -100.0), ("act", "ratio=0.2", -90.0),
    ]  # fmt: skip
    assert [(line.name, line.score) for line in found["two"]] == [("act", -50.0)]


def test_backdoors_are_ranked_by_held_out_rows() -> None:
    held_out = {"rows_holdout": 50, "holdout_memorized_before": 1.0, "holdout_memorized_count_before": 50}
    held_out |= {"holdout_memorized_after": 0.5, "holdout_memorized_count_after": 25}
    row = make_row("act", "backdoor", after=0, performance=0.97, weights="w1", **held_out)
    assert standings([row], WEIGHTS)["one"][0].score == -50.0


def test_a_plugins_rows_are_apart_from_ours_and_from_those_of_another_content() -> None:
    rows = [make_row("act", performance=0.97, weights="w1", plugin=plugin) for plugin in (None, "a" * 64, "b" * 64)]
    assert {line.name for line in standings(rows, WEIGHTS)["one"]} == {"act", "act (aaaaaaaaaaaa)", "act (bbbbbbbbbbbb)"}


def test_the_page_says_which_fine_tunings_are_of_an_older_precision() -> None:
    old = make_row("finetune-extra", performance=0.97, weights="w1", device_type="cuda")
    words = "these computed in fp32"
    assert words in leaderboard_page([old], [], WEIGHTS)
    new = replace(old, weights="w2", computed_in="bf16")
    page = leaderboard_page([new, old], [], WEIGHTS)
    assert words not in page and "computed in fp32: finetune-extra on one.\n" in page, "a new line is not said to be old"
    others = [replace(old, method=name, weights=weights) for weights in ("w2", "w1") for name in ("finetune-clean", "finetune-both")]
    page = leaderboard_page([new, old, *others], [], WEIGHTS)
    tuned = "finetune-both, finetune-clean"
    assert f"computed in fp32: {tuned}, finetune-extra on one; {tuned} on two.\n" in page, "sorted, and together by checkpoint"
    for row in (replace(old, computed_in="bf16"), replace(old, device_type="cpu"), replace(old, method="act")):
        assert words not in leaderboard_page([row], [], WEIGHTS)


def test_new_rows_replace_those_of_equal_ids() -> None:
    old, other = make_row("act", after=7), make_row("zero")
    new = replace(old, memorized_after=0.0)
    assert merged([old, other], [new]) == [other, new]
    tuned = make_row("finetune-extra", weights="w1", id="before", seconds=4.0)
    again = replace(tuned, id="after", computed_in="bf16", seconds=2.0)
    assert merged([old, tuned], [again]) == [old, again] and merged([again], [replace(again, id="x", weights="w2")])[0] == again
    wide = replace(again, id="wide", prompt=8, match=10)
    assert merged([again], [wide]) == [wide], "what an older TinyMem stored without its window is the same run"
    assert (
        merged([wide], [replace(wide, id="x", prompt=9)])[0] == wide
        and merged([wide], [replace(wide, id="x", dtype="bfloat16")])[0] == wide
    )
    failed = replace(old, status="timeout", message="too long")
    assert merged([old, other], [failed, replace(again, status="failed")]) == [old, other], "what failed replaces nothing"
    attacked = replace(tuned, robustness={"relearn": {"share": 0.5}})
    assert merged([attacked], [replace(tuned, id="x")]) == merged([attacked], [tuned]) == [attacked]
    assert merged([attacked], [again]) == [again] and merged([tuned], [attacked]) == [attacked]


def test_the_sample_is_drawn_by_seed_from_what_is_quick() -> None:
    rows = [make_row(name, performance=0.97, weights="w1", seconds=seconds) for name, seconds in (("act", 0.5), ("zero", 0.6), ("sou", 9))]
    found = standings(rows, WEIGHTS)
    drawn = [name for seed in range(9) for name in [line.name for _, line in sample(found, 1, seed, 1.0)]]
    assert set(drawn) == {"act", "zero"} and drawn == [line.name for seed in range(9) for _, line in sample(found, 1, seed, 1.0)]
    assert len(sample(found, 9, 0, 1.0)) == 2


def words_of(zoo: Path, folder: Path) -> tuple[object, ...]:
    store_rows(folder / "none.parquet", [])
    places = (
        "--stored",
        folder / "rows.parquet",
        "--table",
        folder / "none.parquet",
        "--sweeps",
        folder / "sweeps",
        "--out",
        folder / "page.md",
    )
    return "zoo", "leaderboard", "--zoo", zoo, *places, "--device", "cpu", "--jobs", 1


@pytest.mark.processes
@pytest.mark.thorough
def test_a_method_of_ones_own_is_run_and_stored(small: Path, plugin: Path, tmp_path: Path) -> None:
    with UNLEARNERS.temporary():
        done = tinymem(*words_of(small, tmp_path), "--submit", plugin)
    assert done.code == 0, done.err
    rows, sha256 = stored_rows(tmp_path / "rows.parquet"), file_sha256(plugin)
    assert {(row.method, row.plugin, row.artifact) for row in rows} == {("halver", sha256, kind) for kind in ("noise", "backdoor")}
    assert f"| halver ({sha256[:12]}), noise |" in (tmp_path / "page.md").read_text()


@pytest.mark.processes
@pytest.mark.thorough
def test_lines_are_run_again(small: Path, tmp_path: Path) -> None:
    recipe = parse_sweep({"checkpoints": str(small / "tiny-2l-s0"), "methods": "act", "grid": "none"})
    sweep = open_sweep(recipe, out=tmp_path / "first", runs=tmp_path, device_type="cpu")
    for group in sweep.plan.groups:
        Worker(sweep.folder, "cpu").work(group, lambda _: None)
    words = words_of(small, tmp_path)
    assert tinymem(*words, "--from", sweep.folder).code == 0
    done = tinymem(*words, "--check")
    assert (done.code, "OUTSIDE" in done.out) == (0, False), done.err
    assert "2 lines run again, 0 numbers outside" in done.out and "performance_after 0.005" in done.out
    rows = stored_rows(tmp_path / "rows.parquet")
    store_rows(tmp_path / "rows.parquet", [replace(row, performance_after=(row.performance_after or 0) + 0.01) for row in rows])
    done = tinymem(*words, "--check")
    assert (done.code, done.out.count("OUTSIDE")) == (1, 2)


def test_refusals(small: Path, tmp_path: Path) -> None:
    words = words_of(small, tmp_path)
    empty = tmp_path / "empty.py"
    empty.write_text("")
    for more, said in (
        (("--submit", empty), "expected a new method in"),
        (("--submit", tmp_path / "no.py"), "no.py"),
        (("--check",), "expected stored rows of these checkpoints, found none"),
        (("--check", "--from", tmp_path), "expected one of --submit, --from and --check"),
    ):
        done = tinymem(*words, *more)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "page.md").exists()


def test_only_rows_that_the_page_can_show_are_stored(small: Path, tmp_path: Path) -> None:
    words, shipped = words_of(small, tmp_path), weights_of(small)["tiny-2l-s0"]
    sweeps = {
        "other": [make_row("act", weights="w1")],
        "protocol": [make_row("act", weights=shipped, protocol="reference")],
        "failed": [make_row("act", weights=shipped, status="failed")],
    }
    folders = {name: write_results(tmp_path / name, rows) for name, rows in sweeps.items()}
    for name, got in (("other", "1 row of other models"), ("protocol", "1 row of other models"), ("failed", "none with a result")):
        refused = tinymem(*words, "--from", folders[name]).one_line_error()
        assert f"in {folders[name]}, found {got}" in refused and "nothing was stored" in refused
    assert not (tmp_path / "rows.parquet").exists() and not (tmp_path / "page.md").exists()
    both = write_results(tmp_path / "both", [make_row("act", weights="w1"), make_row("zero", weights=shipped)])
    assert tinymem(*words, "--from", both).code == 0
    assert [row.method for row in stored_rows(tmp_path / "rows.parquet")] == ["zero"]


def test_a_table_that_is_named_and_missing_is_refused(small: Path, tmp_path: Path) -> None:
    refused = tinymem("zoo", "leaderboard", "--zoo", small, "--table", tmp_path / "none", "--out", tmp_path / "page.md").one_line_error()
    assert f"expected a file of stored rows for --table, found none at {tmp_path / 'none'}" in refused
    assert not (tmp_path / "page.md").exists()
