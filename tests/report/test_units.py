"""A configuration and seed is what counts, however many folders and weights it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from figure_rows import curve, recipe
from report_rows import make_row

from tinymem.report.compare import compare_with_published
from tinymem.report.configurations import groups_of
from tinymem.report.figures.points import inputs_of
from tinymem.report.tables.catalogue import tables_of
from tinymem.report.tables.memorization import table_of_best
from tinymem.results.collect import results_of
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord


def trained(seed: int, weights: str, after: int, method: str = "act", **changes: Any) -> MeasuredRow:
    """A row of a model of recipe and seed, in a folder and with weights of its own."""
    run = f"n-{seed:08x}"
    return make_row(method, after=after, seed=seed, run=run, model_id=f"{seed:08x}", weights=weights, id=f"{method}{weights}", **changes)


TWICE = [trained(0, "a", 10), trained(0, "a", 30, "slim"), trained(0, "b", 20), trained(1, "c", 12), trained(1, "c", 31, "slim")]


def test_a_model_that_was_trained_twice_counts_once_and_the_tables_say_so() -> None:
    [group] = groups_of(results_of(TWICE))
    [act] = group.of_method("noise", "act")
    mean, counts = act.memorized("after"), act.counts("after")
    assert mean is not None and counts is not None
    assert (mean.mean, mean.n, act.seeds) == (11.0, 2, 2) and (counts.count, counts.rows) == (22, 200)
    assert len(group.baseline["noise"].rows) == 2
    sentence = "Configuration 00000000, epoch 3500, seed 0: trained 2 times to other weights; it counts once, with a."
    for table in tables_of(results_of(TWICE), ["1", "best", "pareto"]):
        assert sentence in table.notes, table.name
    [compared], _ = compare_with_published(results_of([make_row("act"), *TWICE[:3]]))
    assert sentence in compared.notes
    assert not any("trained 2 times" in note for table in tables_of(results_of(TWICE[:2] + TWICE[3:])) for note in table.notes)


def test_the_order_of_folders_does_not_matter_and_no_method_is_lost() -> None:
    only = trained(0, "b", 5, "zero")  # on the training that does not count
    for rows in ([*TWICE, only], [only, *reversed(TWICE)]):
        [group] = groups_of(results_of(rows))
        assert [row.weights for setting in group.of_method("noise", "act") for row in setting.rows if row.seed == 0] == ["a"]
        assert [row.weights for setting in group.of_method("noise", "zero") for row in setting.rows] == ["b"]


def test_other_configurations_seeds_and_epochs_stay_apart() -> None:
    rows = [trained(0, "a", 10), trained(1, "b", 10), make_row("act", seed=0, run="n-0000000f", model_id="f", weights="d", id="f")]
    [group] = groups_of(results_of(rows))
    assert len(group.of_method("noise", "act")[0].rows) == 3 and not group.repeated


def test_figures_count_it_once() -> None:
    [point] = [p for p in inputs_of(results_of(TWICE)).points if p.method == "act"]
    assert point.memorized == pytest.approx(11.0) and len(point.sources) == 2
    records = [RunRecord(Path(folder) / "n-0000000a", [], curve(), recipe()) for folder in ("x", "y")]
    assert len(inputs_of(results_of([], records)).curves) == 1


def test_seeds_that_were_trained_for_different_times_count_each_at_its_last_epoch() -> None:
    """Seed 0 was trained to 3,500 epochs, the others to 1,500; of each, earlier checkpoints were measured too."""
    trained = {0: (500, 1500, 3500), 1: (500, 1500), 3: (1500,)}
    rows = [
        make_row("act", after=after, seed=seed, epoch=epoch, weights=f"{seed}-{epoch}", model_name="m")
        for seed, epochs in trained.items()
        for after, epoch in zip((9, 5, 1), epochs, strict=False)
    ]
    (group,) = groups_of(results_of(rows))
    assert [(row.seed, row.epoch) for row in group.of_method("noise", "act")[0].rows] == [(0, 3500), (1, 1500), (3, 1500)]
    assert group.epochs["noise"] == 3500
    said = "trained for different times: seeds 1 and 3 after epoch 1,500; seed 0 after epoch 3,500."
    assert any(said in note for note in table_of_best(group).notes)
    assert [group.epochs["noise"] for group in groups_of(results_of(rows), every_epoch=True)] == [500, 1500, 3500]
