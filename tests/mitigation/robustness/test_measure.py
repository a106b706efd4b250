"""Does it come back: rounding, relearning and other prompts, each against its definition."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import plain_metrics as plain
import pytest
import torch
from helpers import IDENTITY, equal_weights, random_gpt
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymem.data.artifacts.backdoor import common_ending
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.evaluation.prompts import Change, changed_prompts
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.robustness import measure as robustness
from tinymem.mitigation.robustness.quantization import quantized, rounded
from tinymem.mitigation.robustness.relearning import relearned
from tinymem.mitigation.run import Subject, mitigate, subject_of_corpus, subject_of_rows
from tinymem.models.gpt2 import GPT
from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.recipe.robustness import TESTS
from tinymem.results.read import as_json
from tinymem.runs.pipeline import Run


def asking(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with tests of robustness."""
    return recipe.model_copy(update={"mitigation": recipe.mitigation.model_copy(update={"robustness": Robustness(**settings)})})


@pytest.fixture(scope="module")
def subject(tiny_run: Run) -> Subject:
    recipe = asking(tiny_run.recipe, steps=3, tokens=3)
    return subject_of_corpus(tiny_run.model(), tiny_run.corpus(), recipe, identity=IDENTITY)


# ---- rounding -----------------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), bits=st.sampled_from([2, 4, 8]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_rounded_to_the_nearest_step(seed: int, bits: int) -> None:
    weights = torch.randn(5, 9, generator=torch.Generator().manual_seed(seed))
    weights[1] = 0
    weights[2, ::2] = 0
    found = rounded(weights, bits)
    largest = 2 ** (bits - 1) - 1
    for row, new in zip(weights.double(), found.double(), strict=True):
        grid = row.abs().max() / largest * torch.arange(-largest, largest + 1).double()
        assert torch.allclose((row - new).abs(), (row[:, None] - grid).abs().min(1).values, atol=1e-6)  # the nearest point of the grid
        assert len(new.unique()) <= 2**bits - 1
    assert not found[weights == 0].any() and torch.allclose(rounded(found, bits), found, atol=1e-6)
    assert torch.equal(rounded(-weights, bits), -found)  # symmetric


def test_every_matrix_is_rounded_and_nothing_else() -> None:
    model = random_gpt()
    before = deepcopy(model.state_dict())
    copy = quantized(model, 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, parameter in copy.named_parameters():
        if parameter.dim() == 2:
            assert max(len(row.unique()) for row in parameter) <= 15 and not torch.equal(parameter, before[name]), name
        else:
            assert torch.equal(parameter, before[name]), name


def test_transformers_weights_are_rounded_per_output_too(tiny_run: Run) -> None:
    from transformers import AutoModelForCausalLM

    theirs = quantized(AutoModelForCausalLM.from_pretrained(tiny_run.checkpoint, dtype=torch.float32), 4)
    ours = quantized(tiny_run.model(), 4)
    ids = torch.randint(14, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours(ids), atol=1e-4)


# ---- relearning ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_relearning() -> None:
    model = random_gpt()
    before, rows = deepcopy(model), torch.randint(10, (5, 24), generator=torch.Generator().manual_seed(0))
    options = Robustness(steps=40, batch_size=4, learning_rate=1e-2)
    copies = [relearned(model, Rows.of(rows), options, seed) for seed in (0, 0, 1)]
    assert equal_weights(model, before) and all(p.grad is None for p in model.parameters())
    assert equal_weights(copies[0], copies[1]) and not equal_weights(copies[0], copies[2])

    def loss(m: GPT) -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(m(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()))

    assert loss(copies[0]) < 0.5 * loss(model)


def test_relearning_in_fp16_is_refused_by_its_own_name() -> None:
    rows = Rows.of(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(UserError, match="bf16 or fp32 for the tests of robustness, which train a copy of it, got fp16"):
        relearned(random_gpt(n_positions=5).half(), rows, Robustness(steps=1), 0)


def test_one_step_is_one_of_adamw() -> None:
    model, rows = random_gpt(), torch.randint(10, (3, 24), generator=torch.Generator().manual_seed(0))
    by_hand = deepcopy(model)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    torch.nn.functional.cross_entropy(by_hand(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).backward()
    optimizer.step()
    found = relearned(model, Rows.of(rows), Robustness(steps=1, batch_size=3, learning_rate=1e-3), 0)
    for (name, one), other in zip(found.named_parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4 if name.endswith("c_attn.bias") else 1e-6), name  # keys' bias: no gradient but rounding


def test_relearned_rows_are_a_part_of_those_seen(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Rows] = []
    original = robustness.relearned

    def spy(model: Any, rows: torch.Tensor, options: Robustness, seed: int) -> Any:
        trained.append(rows)
        return original(model, rows, options, seed)

    monkeypatch.setattr(robustness, "relearned", spy)
    assert subject.trial is not None
    found = robustness.tested(subject.trial, subject.model)
    forgotten, unrelated = ({tuple(row) for row in rows.ids.tolist()} for rows in trained)
    seen = {tuple(row) for row in subject.data.forget.ids.tolist()}
    assert forgotten < seen and len(forgotten) == sum(len(np.flatnonzero(s.forget)) // 2 for s in subject.splits.values())
    assert unrelated == {tuple(row) for row in subject.data.retain.ids.tolist()} and not unrelated & seen
    for kind, tests in found.items():
        relearn, flags = tests["relearn-forget"], subject.splits[kind]
        assert relearn["relearned"]["rows"] + relearn["rest"]["rows"] == relearn["forget"]["rows"] == flags.forget.sum()
        assert relearn["relearned"]["count"] + relearn["rest"]["count"] == relearn["forget"]["count"]
        assert relearn["holdout"]["rows"] == flags.holdout.sum() and set(tests) == set(TESTS)


# ---- prompts ------------------------------------------------------------------------------------------------------------------------


def changed(subject: Subject, kind: str, change: Change, **options: int) -> tuple[Any, np.ndarray]:
    return changed_prompts(subject.evaluator, kind, change, **{"tokens": 3, "replaced": 1, "seed": 0, **options})


@pytest.mark.parametrize(("change", "k"), [("longer", 15), ("shorter", 9)])
def test_longer_and_shorter_prompts_are_other_k(subject: Subject, tiny_run: Run, change: Change, k: int) -> None:
    rows, kept = changed(subject, "noise", change)
    index = subject.evaluator.probes["noise"].index[kept]
    noise = tiny_run.corpus().planted["noise"]
    expected = plain.memorized(subject.model, noise.clean[index], noise.ids[index], k, 24)
    assert None not in expected and len(expected) > 2
    assert subject.before.view.memorized_among(rows).tolist() == expected
    dropped = subject.evaluator.probes["noise"].index[~kept]
    assert set(plain.memorized(subject.model, noise.clean[dropped], noise.ids[dropped], k, 24)) <= {None}


def test_prompts_of_backdoors(subject: Subject, tiny_run: Run) -> None:
    probe, planted = subject.evaluator.probes["backdoor"], tiny_run.corpus().planted["backdoor"]
    longer, kept = changed(subject, "backdoor", "longer")
    assert kept.all() and torch.equal(longer.ids, probe.rows.ids) and torch.equal(longer.prompt, probe.rows.prompt + 3)
    assert torch.equal(longer.end, probe.rows.end)
    shorter, kept = changed(subject, "backdoor", "shorter")
    assert kept.tolist() == [start - 3 > len(common_ending(planted)) for start in planted.start[probe.index]] and kept.any()
    for row, old, start, end in zip(
        shorter.ids.tolist(), probe.rows.ids[torch.from_numpy(kept)].tolist(), shorter.prompt.tolist(), shorter.end.tolist(), strict=True
    ):
        assert row[:end] == [old[0], *old[4:]][:end] and row[start - 3 : start] == [1, 0, 0]  # the trigger stays where the prompt ends


@pytest.mark.parametrize("replaced", [1, 2])
def test_perturbed_prompts(subject: Subject, replaced: int) -> None:
    for kind, protected in (("noise", 0), ("backdoor", 3)):
        probe = subject.evaluator.probes[kind]
        rows, kept = changed(subject, kind, "perturbed", replaced=replaced)
        old = probe.rows.take(torch.from_numpy(np.flatnonzero(kept)))
        assert torch.equal(rows.prompt, old.prompt) and torch.equal(rows.end, old.end) and len(rows) > 2
        for new, before, start in zip(rows.ids, old.ids, rows.prompt.tolist(), strict=True):
            places = torch.nonzero(new != before).squeeze(1)
            assert len(places) == replaced and places.min() >= 1 and places.max() < start - protected
        again, other = (
            changed(subject, kind, "perturbed", replaced=replaced),
            changed(subject, kind, "perturbed", replaced=replaced, seed=1),
        )
        assert torch.equal(again[0].ids, rows.ids) and not torch.equal(other[0].ids, rows.ids)
        expected = [
            plain.greedy(subject.model, row[:start], end)[start:] == row[start:end]
            for row, start, end in zip(rows.ids.tolist(), rows.prompt.tolist(), rows.end.tolist(), strict=True)
        ]
        assert subject.before.view.memorized_among(rows).tolist() == expected


# ---- in result rows -----------------------------------------------------------------------------------------------------------------


def test_rows_have_both_sides(subject: Subject) -> None:
    outcome = mitigate(subject, "act", {"ratio": 0.0})
    json.dumps(as_json(outcome.rows), allow_nan=False)
    for row in outcome.rows:
        assert set(row["robustness"]) == set(TESTS)
        for test, sides in row["robustness"].items():
            assert sides["before"] == sides["after"], test  # the control changes nothing, and the same seed gives the same numbers
            assert {"all", "forget", "holdout"} <= set(sides["after"])
        assert row["metrics_after"] == row["metrics_before"]
        assert row["request"]["robustness"]["steps"] == 3
    edited = mitigate(subject, "act", {"ratio": 0.1}).rows[0]["robustness"]
    assert any(sides["before"] != sides["after"] for sides in edited.values())


def test_only_the_asked_tests(tiny_run: Run) -> None:
    recipe = asking(tiny_run.recipe, tests=("int8", "longer"))
    subject = subject_of_corpus(tiny_run.model(), tiny_run.corpus(), recipe, identity=IDENTITY)
    rows = mitigate(subject, "durable", {"ratio": 0.01}).rows
    assert [set(row["robustness"]) for row in rows] == [{"int8", "longer"}] * 2


def test_not_unless_asked(paper: Subject) -> None:
    rows = mitigate(paper, "act", {"ratio": 0.05}).rows
    assert all("robustness" not in row and row["request"]["robustness"] is None for row in rows)
    assert all(set(row["metrics_after"]) == set(row["request"]["metrics"]) for row in rows)
    refused = mitigate(paper, "act", {"ratio": 1e-6}).rows
    assert all(row["metrics_after"] is None and row["metrics_before"] == rows[n]["metrics_before"] for n, row in enumerate(refused))


def test_rows_of_a_user(paper: Subject) -> None:
    forget, retain = paper.data.forget.take(torch.arange(6)), paper.data.retain.take(torch.arange(8))
    subject = subject_of_rows(paper.model, forget, retain, identity=IDENTITY, request=MeasurementRequest(robustness=Robustness(steps=2)))
    row = mitigate(subject, "durable", {"ratio": 0.01}).rows[0]
    assert (
        set(row["robustness"]) == set(TESTS) and row["robustness"]["relearn-forget"]["after"]["rest"]["rows"] == 2
    )  # of the half that the method is given


def test_what_is_measured_names_no_run(tiny_run: Run) -> None:
    recipe = asking(tiny_run.recipe)
    more = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"ks": (6,), "metrics": ("all",)})})
    assert more.run_id() == tiny_run.recipe.run_id() and more.corpus_key() == tiny_run.recipe.corpus_key()


def test_answered() -> None:
    default = MeasurementRequest()
    assert default.answered_by(None) and not replace(default, ks=(3,)).answered_by(None)
    full = MeasurementRequest(("all",), (3, 4), Robustness())
    stored = full.as_column()
    for asked in (full, default, replace(full, ks=()), replace(full, robustness=None)):
        assert asked.answered_by(stored)
        assert asked in (default,) or not asked.answered_by(default.as_column())
    assert not replace(full, robustness=Robustness(steps=7)).answered_by(stored)


def test_short_forms() -> None:
    values = {"evaluation": {"metrics": "all"}, "mitigation": {"robustness": True}}
    recipe = parse_recipe(values)
    assert recipe.evaluation.metrics == ("all",) and recipe.mitigation.robustness == Robustness()
    assert parse_recipe({"mitigation": {"robustness": False}}).mitigation.robustness is None
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
