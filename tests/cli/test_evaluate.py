"""`tinymem metrics`, `evaluate --metrics`, `mitigate --robustness`, and metrics of a user's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import QUICKSTART, TINY, files_in, sets, tinymem

from tinymem.evaluation.metric import METRICS
from tinymem.runs.pipeline import Run

OWN = '''"""My own.

Formula: prompt tokens, mean over rows
Unit: tokens
Direction: none
Range: 1 and up,
    in whole numbers
Source: nobody
"""
from tinymem import metric

@metric("prompt-length")
def prompt_length(view, kind):
    if kind == "backdoor" and BROKEN:
        raise ZeroDivisionError("no luck")
    return view.by_group(kind, view.probe(kind).rows.prompt.numpy().astype(float))
'''


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A file with a metric."""
    path = tmp_path / "own.py"
    path.write_text(OWN.replace("BROKEN", "False"))
    with METRICS.temporary():
        yield path


def test_list_and_show(own: Path) -> None:
    done = tinymem("metrics", "--plugin", own)
    assert done.code == 0 and all(f"\n{name}" in f"\n{done.out}" for name in METRICS.names())
    for word in ("formula", "unit", "direction", "range"):
        assert done.out.count(f"\n  {word}") == len(METRICS.names())
    assert "1 and up, in whole numbers" in done.out and "exposure  (of each artifact)" in done.out and "memorized *" in done.out
    facts = json.loads(tinymem("metrics", "show", "extraction-strength", "--json").out)
    assert {"part": "unit", "value": METRICS.get("extraction-strength").field("Unit")} in facts and facts[-1]["part"] == "documentation"
    shown = tinymem("metrics", "show", "extraction-strength")
    assert "Formula: 1 - k*/T" in shown.out and "Source: Carlini et al. 2021" in shown.out
    assert "did you mean 'membership'?" in tinymem("metrics", "show", "membershp").one_line_error()


def test_evaluate(checkpoint: Path, own: Path) -> None:
    default = json.loads(tinymem("evaluate", checkpoint, "--json").out)
    assert set(default["metrics"]["noise"]) == {n for n in METRICS.names() if METRICS.get(n).default}
    some = json.loads(
        tinymem("evaluate", checkpoint, "--metrics", "memorized, prompt-length", "--ks", "6,9", "--plugin", own, "--json").out
    )
    assert set(some["metrics"]["noise"]) == {"memorized", "prompt-length"}
    assert set(some["metrics"]["noise"]["memorized"]) == {"k=6", "k=9", "k=12"}
    assert some["metrics"]["noise"]["prompt-length"]["all"]["mean"] == 12
    everything = json.loads(tinymem("evaluate", checkpoint, "--metrics", "all", "--json").out)
    assert everything["metrics"]["noise"]["membership"]["loss"]["all"]["auc"] > 0.5
    assert {k: v for k, v in everything.items() if k != "metrics"} == {k: v for k, v in default.items() if k != "metrics"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "memorised"], "unknown metric 'memorised'; did you mean 'memorized'?"),
        (["--ks", "five"], "expected --ks to be numbers"),
        (["--ks", "0"], "expected evaluation.ks to be different numbers from 1 to 23"),
        (["--ks", "24"], "got [24]"),
        (["--ks", "3,3"], "got [3, 3]"),
    ],
)
def test_bad_input(checkpoint: Path, words: list[str], message: str) -> None:
    assert message in tinymem("evaluate", checkpoint, *words).one_line_error()


def test_a_metric_that_fails_says_which(checkpoint: Path, own: Path, tmp_path: Path) -> None:
    own.write_text(OWN.replace("BROKEN", "True"))
    line = tinymem("evaluate", checkpoint, "--metrics", "prompt-length", "--plugin", own).one_line_error()
    assert line == "the metric 'prompt-length' failed on backdoor: ZeroDivisionError: no luck"
    words = ("mitigate", checkpoint, "--method", "act", "--metrics", "prompt-length", "--plugin", own, "--out", tmp_path / "edited")
    assert "no luck" in tinymem(*words).last_line_error() and not (tmp_path / "edited").exists()


def test_mitigate(checkpoint: Path) -> None:
    words = ("--method", "act", "--ratio", 0.05, "--robustness", "--metrics", "default,edit-distance", "--ks", "6", "--format", "json")
    done = tinymem("mitigate", checkpoint, *words)
    assert done.code == 0, done.err
    for row in json.loads(done.out):
        assert set(row["robustness"]) >= {"relearn-forget", "int4", "perturbed"} and "edit-distance" in row["metrics_after"]
    assert "k=6" in json.loads(done.out)[0]["metrics_after"]["memorized"]


def test_a_run_measures_what_is_asked_later(tiny_run: Run, tmp_path: Path) -> None:
    """The same run, asked for more: its training stays, its results are measured anew under their names, once."""
    shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name)
    made = tmp_path / "runs" / tiny_run.path.name
    for path in (made / "results").iterdir():
        if json.loads(path.read_text())[0]["method"] != "act":
            path.unlink()
    (name,) = [path.name for path in (made / "results").iterdir()]
    before = files_in(made / "checkpoint")
    more = [
        "mitigation.methods=[{act: {ratio: 0.05}}]",
        "evaluation.metrics=[default, membership]",
        "mitigation.robustness={tests: [int8]}",
    ]
    done = tinymem("run", QUICKSTART, *sets([*TINY, *more]), "--runs", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    assert [path.name for path in (made / "results").iterdir()] == [name] and files_in(made / "checkpoint") == before
    rows = json.loads((made / "results" / name).read_text())
    assert all(row["metrics_after"]["membership"] and set(row["robustness"]) == {"int8"} for row in rows)
    stamp = files_in(made / "results")
    assert tinymem("run", QUICKSTART, *sets([*TINY, more[0]]), "--runs", tmp_path / "runs", "--device", "cpu").code == 0
    assert files_in(made / "results") == stamp  # it holds more than is asked
    wrong = tinymem("run", QUICKSTART, *sets([*TINY, "evaluation.metrics=membershp"]), "--runs", tmp_path / "other")
    assert "did you mean 'membership'?" in wrong.last_line_error() and not (tmp_path / "other").exists()
