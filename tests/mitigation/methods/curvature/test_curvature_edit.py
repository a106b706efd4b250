"""The curvature edit as a method: stored factors, layers and matrices, rows, the budget, and that it is shown nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tinymem
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.data.text.kept import clear, kept
from tinymem.errors import UserError
from tinymem.mitigation.ablation import Refused
from tinymem.mitigation.method import UNLEARNERS, MitigationData, Performance, all_methods, apply, parse_config
from tinymem.mitigation.methods.curvature import _budget, _common, _store
from tinymem.mitigation.methods.curvature._budget import GRID, Judge, largest
from tinymem.mitigation.run import Subject, mitigate, subject_of_corpus
from tinymem.recipe.recipe import parse_recipe
from tinymem.report.tables.of_rows import table_of_rows
from tinymem.runs.pipeline import Run
from tinymem.runtime.progress import SilentBar
from tinymem.testing import tiny_case

CONTROLS = ("svd", "random-basis", "lowest-kept")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def case() -> tuple[nn.Module, MitigationData]:
    return tiny_case("gpt")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The projections of each pass over the rows."""
    found: list[list[str]] = []
    original = _store.moments

    def counting(model: nn.Module, rows: Rows, group: Any, *rest: Any, **options: Any) -> Any:
        found.append([projection.name for projection in group])
        return original(model, rows, group, *rest, **options)

    monkeypatch.setattr(_store, "moments", counting)
    yield found


def edit(case: tuple[nn.Module, MitigationData], method: str = "kfac", **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    model, data = case
    data = replace(data, found={})
    return apply(UNLEARNERS.get(method), model, data, parse_config(UNLEARNERS.get(method), options)), data.found


def changed(case: tuple[nn.Module, MitigationData], edited: nn.Module) -> list[str]:
    return [name for name, p in case[0].named_parameters() if not torch.equal(p, edited.get_parameter(name))]


def test_one_pass_serves_every_rho_layer_matrix_and_control(case: Any, passes: list[list[str]]) -> None:
    edit(case, rho=0.9, layers=[1])
    assert passes == [["transformer.h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_proj.weight"]]
    first, _ = edit(case, rho=0.9)
    assert passes[1:] == [["transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight"]]
    for method in ("kfac", *CONTROLS):
        edit(case, method, rho=0.8)
    again, _ = edit(case, rho=0.9)
    assert len(passes) == 2 and not changed((first, case[1]), again)


def test_another_model_other_rows_and_other_labels_have_factors_of_their_own(case: Any, passes: list[list[str]]) -> None:
    model, data = case
    edit(case)
    edit(case, labels="gold")
    edit((model, replace(data, seed=4)))
    edit((model, replace(data, retain=data.retain.take(torch.arange(9)))))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias += 1e-3
    edit(case)
    assert len(passes) == 5


def test_a_damaged_file_is_made_again_and_a_cache_that_cannot_be_written_is_done_without(
    case: Any, cache: Path, passes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = edit(case)
    [damaged] = cache.rglob("*h.1.mlp.c_proj.weight.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:50])
    again, _ = edit(case)
    assert passes[1:] == [["transformer.h.1.mlp.c_proj.weight"]] and not changed((whole, case[1]), again)
    cache.with_name("file").write_text("no folder")
    monkeypatch.setenv("TINYMEM_CACHE", str(cache.with_name("file")))
    with pytest.warns(UserWarning, match="is not kept for other edits"):
        unkept, _ = edit(case)
    assert not changed((whole, case[1]), unkept)


def test_stored_factors_are_not_removed_while_they_are_used(case: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(case)
    [entry] = kept()
    os.utime(entry.path.with_name(entry.path.name + ".of"), (0, 0))
    busy: list[str] = []
    write = _common.Plan.write
    monkeypatch.setattr(_common.Plan, "write", lambda *given: [busy.extend(one.name for one in clear()[1]), write(*given)][1])
    edit(case, rho=0.9)
    assert busy == [entry.name] and kept()[0].used > 0
    assert [one.name for one in clear()[0]] == [entry.name] and not kept()


def test_layers_and_matrices_are_those_that_are_named(case: Any) -> None:
    assert changed(case, edit(case, layers=[0])[0]) == ["transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight"]
    attention = changed(case, edit(case, matrices="attention")[0])
    assert attention == [f"transformer.h.{i}.attn.{name}.weight" for i in range(2) for name in ("c_attn", "c_proj")]
    assert len(changed(case, edit(case, matrices="all")[0])) == 8
    with pytest.raises(UserError, match="expected layers from 0 to 1, got 2"):
        edit(case, layers=[2])


def test_the_verb_prints_what_was_found_of_a_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[1, 2, 3, 4]\n[5]\n[2, 3, 4]\n")
    done = tinymem("mitigate", checkpoint, "--method", "kfac", "--rho", 0.9, "--rows", tmp_path / "rows.jsonl", "--device", "cpu")
    assert done.code == 0, done.err
    assert re.search(r"kfac found: rows sha256 [0-9a-f]{16}, kept 0\.\d+, curvature rows 2,", " ".join(done.out.split()))


@pytest.mark.parametrize("method", ["kfac", *CONTROLS])
def test_rho_one_changes_nothing(case: Any, method: str) -> None:
    edited, found = edit(case, method, rho=1.0)
    assert not changed(case, edited) and found["kept"] == 1.0


def test_rows_may_be_the_training_mix_or_a_file(case: Any, tmp_path: Path) -> None:
    model, data = case
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"ids": {row}}}\n' for row in data.forget.ids.tolist()))
    mix = replace(data, training=lambda number, seed: data.forget.take(torch.arange(number)))
    of_file, found = edit(case, rows=str(tmp_path / "rows.jsonl"), labels="gold")
    of_mix, _ = edit((model, mix), rows="training", sample=6, labels="gold")
    assert found["curvature_rows"] == 6 and len(found["rows_sha256"]) == 16 and changed(case, of_file) == changed(case, of_mix)
    for name, p in of_file.named_parameters():
        torch.testing.assert_close(p, of_mix.get_parameter(name), atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="expected a model with its corpus"):
        edit(case, rows="training")
    with pytest.raises(UserError, match="found no file nowhere"):
        edit(case, rows="nowhere")
    for content, message in (
        ("[1, 2, 3]\n[1, 2, 99]\n", "expected token ids from 0 to 16 in line 2 of .*got 99"),
        ("[1, 2, -3]\n", "expected token ids from 0 to 16 in line 1 of .*got -3"),
        ('{"ids": null}\n[]\n', "expected rows of at least 2 tokens in .*got none"),
        ("[1]\n[2]\n", "expected rows of at least 2 tokens in .*got none"),
    ):
        (tmp_path / "wrong.jsonl").write_text(content)
        with pytest.raises(UserError, match=message):
            edit(case, rows=str(tmp_path / "wrong.jsonl"))
    with pytest.raises(UserError, match="got none; curvature is measured on them"):
        edit((model, replace(data, retain=data.retain.take(torch.arange(0)))))


# ---- budget -------------------------------------------------------------------------------------------------------------------------


class Shift(nn.Module):
    """Predicts the token before, but for the first so many rows wrongly."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, ids: Tensor) -> Tensor:
        logits = 8.0 * nn.functional.one_hot(ids, 11).float()
        logits[ids[:, 0] <= self.wrong] = 0
        return logits


CONSTANT = Rows.of(torch.arange(1, 11)[:, None].expand(10, 6))


def test_the_grid_is_logarithmic() -> None:
    assert len(GRID) == 24 and GRID[0] == pytest.approx(1 - 1e-5) and GRID[-1] == 0.5
    steps = [(1 - b) / (1 - a) for a, b in pairwise(GRID)]
    assert steps == pytest.approx([steps[0]] * 23)


def test_the_largest_edit_below_the_first_that_costs_too_much() -> None:
    costs = [0, 1, 0, 2, 1, 5, 0, *[9] * 17]  # rows wrong at each rho: a cheap edit beyond a dear one is not taken
    wrong = dict(zip(GRID, costs, strict=True))
    performance = Performance("accuracy")
    rho, cost = largest(lambda value: Shift(wrong[value]), Shift(0), CONSTANT, performance, 20.0, SilentBar())
    assert rho == GRID[4] and cost == pytest.approx(10.0)
    with pytest.raises(Refused, match=r"that of rho 0\.99999 costs 30"):
        largest(lambda value: Shift(3), Shift(0), CONSTANT, performance, 20.0, SilentBar())


def test_cost_in_points_of_accuracy_and_per_cent_of_perplexity() -> None:
    judge = Judge(CONSTANT, Performance("accuracy"))
    assert judge.cost(judge.measure(Shift(0)), judge.measure(Shift(4))) == pytest.approx(40.0)
    judge = Judge(CONSTANT, Performance())
    log_p = torch.tensor([8.0, *[0.0] * 10]).log_softmax(0)[0].item()
    more = 0.4 * (torch.tensor(11.0).log().item() + log_p)
    assert judge.cost(judge.measure(Shift(0)), judge.measure(Shift(4))) == pytest.approx(
        100 * (torch.tensor(more).exp().item() - 1), rel=1e-4
    )


@pytest.mark.slow
def test_a_budget_uses_other_rows_for_the_cost_and_controls_keep_as_many(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Rows] = []
    original = _budget.Judge.__init__
    monkeypatch.setattr(_budget.Judge, "__init__", lambda self, rows, p: [seen.append(rows), original(self, rows, p)][1])
    made: list[Rows] = []
    spectra = _store.spectra_id
    monkeypatch.setattr(_store, "spectra_id", lambda model, rows, *rest: [made.append(rows), spectra(model, rows, *rest)][1])
    edited, found = edit(case, budget=5.0)
    judged, measured = ({tuple(row) for row in rows[0].ids.tolist()} for rows in (seen, made))
    assert len(judged) == len(measured) == 5 and not judged & measured
    assert found["rho"] in GRID and found["cost"] <= 5.0 and changed(case, edited)
    for control in CONTROLS:
        assert edit(case, control, budget=5.0)[1]["kept"] == found["kept"]


def test_the_cost_is_measured_on_as_many_rows_of_each_task(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test rows have as many of each task; of the training rows most are of one, which alone would hide what the others lose."""
    model, data = case
    rows = Rows.of(torch.arange(40)[:, None] % 16 + torch.zeros(1, 12, dtype=torch.int64), prompt=5)
    rows.ids[:, 1] = torch.arange(40) % 13
    data = replace(data, retain=rows, performance=Performance(task=lambda rows: (rows.ids[:, 0] % 8 == 0).long() * 7))  # every eighth
    seen: list[Rows] = []
    original = _budget.Judge.__init__
    monkeypatch.setattr(_budget.Judge, "__init__", lambda self, rows, p: [seen.append(rows), original(self, rows, p)][1])
    judging = _common.shuffled(rows, data.seed).tensor_split(2)[1]
    rare = int((rows.ids[judging, 0] % 8 == 0).sum())
    assert 1 < rare < 6
    edit((model, data), budget=50.0, judged=2 * rare)
    assert int((seen[0].ids[:, 0] % 8 == 0).sum()) == rare and len(seen[0]) == 2 * rare


def test_rows_of_no_task_do_not_judge_where_there_are_others(case: Any) -> None:
    _, data = case
    task = torch.arange(len(data.retain)) % 3 - 1  # -1, 0, 1
    known = {bytes(row): number for row, number in zip(data.retain.ids.numpy(), task.tolist(), strict=True)}
    asked = replace(data, performance=Performance(task=lambda rows: torch.tensor([known[bytes(row)] for row in rows.ids.numpy()])))
    places = torch.arange(len(data.retain))
    judged = _common._evenly(places, asked)
    assert {known[bytes(row)] for row in data.retain.take(judged).ids.numpy()} == {0, 1} and len(judged) > 2
    nothing = replace(data, performance=Performance(task=lambda rows: torch.full((len(rows),), -1)))
    assert _common._evenly(places, nothing).tolist() == places.tolist()


def test_a_corpus_tells_the_task_of_its_clean_rows(paper: Subject, tiny_run: Run) -> None:
    corpus, task = tiny_run.corpus(), paper.data.performance.task
    assert task is not None and corpus.clean_task is not None and len(set(corpus.clean_task.tolist())) > 1
    assert task(paper.data.retain).tolist() == corpus.clean_task.tolist()
    assert task(paper.data.forget).tolist() == [-1] * len(paper.data.forget)


# ---- shown nothing ------------------------------------------------------------------------------------------------------------------


def test_it_is_shown_no_row_to_forget_and_runs_where_there_is_none(case: Any) -> None:
    model, data = case
    with UNLEARNERS.temporary():
        method = UNLEARNERS.get("kfac")
        given: list[MitigationData] = []
        spy = replace(method, function=lambda model, data, config: [given.append(data), method.function(model, data, config)][1])
        apply(spy, model, data, method.config())
    assert len(given[0].forget) == 0 and given[0].twins is None and given[0].clean_counterparts is None
    nothing = replace(data, forget=data.forget.take(torch.arange(0)))
    assert not changed((edit(case)[0], data), edit((model, nothing))[0])


def test_all_scored_rows_count_as_holdout_and_the_table_says_so(paper: Subject) -> None:
    rows = mitigate(paper, "kfac", {"rho": 0.9}).rows
    for row in rows:
        assert (row.rows_forget, row.rows_holdout) == (0, row.rows_scored) and row.is_blind
        assert row.holdout_memorized_before == row.memorized_before and row.holdout_memorized_after == row.memorized_after
        assert row.forget_memorized_after is None and row.found is not None and 0 < row.found["kept"] < 1
    shown = mitigate(paper, "act", {"ratio": 0.05}).rows
    text = "\n".join(table_of_rows([*rows, *shown], "t").notes)
    assert "kfac was shown no row to forget: all scored rows count as holdout." in text and "act was shown" not in text
    assert f"noise before: {100 * shown[0].memorized_before:.1f} %" in text and f"{shown[0].rows_forget} rows to forget" in text
    assert "kfac" in text and "kept 0." in text


def test_under_protocol_reference_too_every_scored_row_counts_as_holdout(tiny_run: Run) -> None:
    values = {**tiny_run.recipe.model_dump(mode="json"), "protocol": "reference"}  # which else holds back no memorized row
    rows = mitigate(subject_of_corpus(tiny_run.model(), tiny_run.corpus(), parse_recipe(values)), "kfac", {"rho": 0.9}).rows
    for row in rows:
        assert row.protocol == "reference" and (row.rows_forget, row.rows_holdout) == (0, row.rows_scored) and row.is_blind
        assert row.holdout_memorized_before == row.memorized_before and row.edited_parameters


def test_all_methods_are_those_that_need_not_be_named() -> None:
    assert not {"kfac", *CONTROLS, "dpo-clean"} & set(all_methods()) and "simnpo" in all_methods() and len(all_methods()) == 23


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rho": 0}, "rho above 0"), ({"rho": 1.5}, "at most 1"), ({"budget": 0}, "budget above 0"), ({"judged": 0}, "judged of at least 1")],
)
def test_options_out_of_range(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_config(UNLEARNERS.get("kfac"), options)
