"""One number of CPU threads for every way of training, recorded where it was another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import QUICKSTART, SMALLER, Killed, die_after_first_save, tinymem
from report_rows import make_row

from tinymem.data.build import make_corpus
from tinymem.recipe.recipe import load_recipe
from tinymem.report.tables.catalogue import tables_of
from tinymem.report.threads import mixed_threads
from tinymem.results.collect import results_of
from tinymem.results.read import as_json
from tinymem.results.row import MitigationRow
from tinymem.runs import pipeline
from tinymem.runtime.files import read_object
from tinymem.training.loop import train
from tinymem.training.threads import TRAINING_THREADS, training_threads


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("there", [1, 3])
def test_training_has_its_own_number(there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(there)
    with training_threads(torch.device("cpu")) as threads:
        assert threads == torch.get_num_threads() == TRAINING_THREADS
    assert torch.get_num_threads() == there
    with training_threads(torch.device("cuda")) as threads:
        assert threads is None and torch.get_num_threads() == there


def test_unless_the_user_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    with training_threads(torch.device("cpu")) as threads:
        assert threads == torch.get_num_threads() == 3


@pytest.mark.training
def test_checkpoint_and_rows_say_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the id does not, so that any number goes on where another stopped."""
    overrides = [*SMALLER, "training.epochs=3", "training.checkpoint_every=1", "mitigation.methods=[{random-neurons: {ratio: 0.1}}]"]
    recipe = load_recipe(QUICKSTART, overrides)
    with monkeypatch.context() as patch:
        die_after_first_save(patch)
        patch.delenv("OMP_NUM_THREADS")
        with pytest.raises(Killed):
            pipeline.run(recipe, runs=tmp_path, device="cpu", report=False)
    run = pipeline.run(recipe, runs=tmp_path, device="cpu", report=False)
    assert read_object(run.checkpoint / "tinymem.json")["threads"] == [1, 2]
    assert read_object(run.checkpoint / "tinymem.json")["ways"] == ["autograd"]
    assert {row.training_threads for row in run.rows} == {"1, 2"} and all(row["training_threads"] for row in as_json(run.rows))
    assert "trained with 1 then 2" in tinymem("report", run.path).out


@pytest.mark.training
def test_one_number_is_recorded_as_one(tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART, [*SMALLER, "training.epochs=1"])
    assert train(recipe, make_corpus(recipe), tmp_path).facts.threads == [1]


def row(training: str | None, device: str) -> MitigationRow:
    return MitigationRow(method="act", artifact="noise", status="ok", training_threads=training, device=device)


def test_tables_that_mix_say_so() -> None:
    assert mixed_threads([row("2", "cpu (2 threads)"), row("2", "cpu (2 threads)"), row(None, "NVIDIA H100")]) == ()
    (trained,) = mixed_threads([row("1", "cpu (2 threads)"), row("2", "cpu (2 threads)")])
    assert trained.startswith("Mixed numbers of CPU threads: models trained with 1 and 2. ")
    (both,) = mixed_threads([row("1", "cpu (1 threads)"), row("2", "cpu (14 threads)")])
    assert "models trained with 1 and 2; methods run with 1 and 14." in both


def test_the_note_stands_below_the_table() -> None:
    rows = [make_row("act", seed=seed, training_threads=threads) for seed, threads in ((0, "1"), (1, "2"), (2, "2"))]
    (mixed,), (equal,) = (tables_of(results_of(some), ["1"]) for some in (rows, rows[1:]))
    assert mixed.notes[-1].startswith("Mixed numbers of CPU threads") and not any("threads" in note for note in equal.notes)
