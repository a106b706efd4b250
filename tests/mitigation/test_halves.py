"""Rows that repeat stay on one side of the holdout, and of the retain rows; without repeats the parts are the first rows by seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from by_heart import MATCH, PROMPT, ByHeart, by_heart
from helpers import QUICKSTART, TINY
from transformers import AutoModelForCausalLM

from tinymem.data.alike import alike_as_wholes, alike_where_tested
from tinymem.data.build import make_corpus
from tinymem.data.own_rows import OwnRows, rows_digest
from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.evaluation.probes import make_probes
from tinymem.mitigation.halves import first_part
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.subject import RowSplit, Subject, _split, subject_of_rows
from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.recipe import load_recipe


@pytest.mark.parametrize("seed", range(30))
def test_a_part_is_as_near_to_what_is_wanted_as_groups_allow(seed: int) -> None:
    draw = random.Random(seed)
    groups = [name for name in range(draw.randint(1, 7)) for _ in range(draw.randint(1, 4))]
    draw.shuffle(groups)
    group_N, names = np.array(groups), sorted({*groups})
    for wanted in range(1, len(groups) + 1):
        part = first_part(group_N, wanted)
        assert not {*group_N[part]} & {*group_N[~part]}
        sizes = {sum(groups.count(g) for g in some) for count in range(1, len(names) + 1) for some in combinations(names, count)}
        allowed = {n for n in sizes if n < len(groups)} if wanted < len(groups) and len(names) > 1 else sizes
        assert abs(part.sum() - wanted) == min(abs(n - wanted) for n in allowed)


def test_without_repeats_a_part_is_the_first_rows() -> None:
    group_N = np.random.default_rng(0).permutation(50)
    for wanted in range(1, 51):
        assert (first_part(group_N, wanted) == (np.arange(50) < wanted)).all()
    assert not first_part(group_N[:0], 1).any()


def test_rows_are_alike_whole_or_as_far_as_they_are_tested() -> None:
    ids = [[1, 2, 3, 4], [1, 2, 3, 9], [1, 2, 3, 4], [5, 2, 3], [5, 2, 3, 0]]
    rows = Rows.ragged(ids, torch.tensor([1, 1, 2, 1, 1]), torch.tensor([3, 3, 4, 3, 4]), 4)
    assert alike_as_wholes(rows).tolist() == [0, 1, 0, 3, 4]
    first, second, third, *others = alike_where_tested(rows).tolist()
    assert first == second == third and len({first, *others}) == 3


# ---- subjects -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> ByHeart:
    return by_heart(tmp_path_factory.mktemp("halves") / "model")


def subject_of(known: ByHeart, forget: Rows, retain: Rows, **more: object) -> Subject:
    return subject_of_rows(AutoModelForCausalLM.from_pretrained(known.folder), forget, retain, **more)  # type: ignore[arg-type]


def sides(rows: Rows, split: RowSplit) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    forget, holdout = ({tuple(rows.ids[i].tolist()) for i in np.flatnonzero(part)} for part in (split.forget, split.holdout))
    return forget, holdout


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_row_are_all_given_or_all_held_out(known: ByHeart, seed: int) -> None:
    forget, retain = Rows.of(known.known[:10].repeat(3, 1), PROMPT), Rows.of(known.retain[:6].repeat(2, 1), PROMPT)
    subject = subject_of(known, forget, retain, seed=seed)
    split = subject.splits["rows"]
    given, held_out = sides(forget, split)
    assert subject.before.memorized["rows"].all() and not given & held_out
    assert (split.forget.sum(), split.holdout.sum(), len(given), len(held_out)) == (15, 15, 5, 5)
    assert {tuple(row) for row in subject.data.forget.ids.tolist()} == given
    kept = {tuple(row) for row in subject.data.retain.ids.tolist()}
    measured = {tuple(row) for ids, _ in subject.evaluator.tests.values() for row in ids.tolist()}
    assert len(kept) == len(measured) == 3 and not kept & measured


def test_a_row_that_is_not_memorized_is_not_given_if_a_held_out_one_is_alike(known: ByHeart) -> None:
    """The same tokens with a prompt from which the model does not go on."""
    ids = known.known[:8]
    forget = Rows.of(torch.cat([ids, ids]), torch.tensor([PROMPT] * 8 + [1] * 8))
    subject = subject_of(known, forget, Rows.of(known.retain, PROMPT))
    assert 0 < (~subject.before.memorized["rows"]).sum() <= 8
    given, held_out = sides(forget, subject.splits["rows"])
    assert held_out and not given & held_out


def test_what_is_relearned_has_no_copy_in_the_rest(known: ByHeart, monkeypatch: pytest.MonkeyPatch) -> None:
    request = MeasurementRequest(robustness=Robustness(tests=("relearn-forget",), steps=1))
    subject = subject_of(known, Rows.of(known.known[:8].repeat(3, 1), PROMPT), Rows.of(known.retain, PROMPT), request=request)
    trained: list[Rows] = []
    monkeypatch.setattr("tinymem.mitigation.robustness.measure.relearned", lambda model, rows, *_: trained.append(rows) or model)
    found = subject.robustness_before["rows"]["relearn-forget"]
    again = Counter(tuple(row) for row in trained[0].ids.tolist())
    assert [*again.values()] == [3, 3] and found["relearned"]["rows"] == found["rest"]["rows"] == 6


def test_rows_to_keep_that_are_all_the_same_have_no_halves(known: ByHeart) -> None:
    with pytest.raises(UserError, match=r"at least 2 different retain rows .*, got 1$"):
        subject_of(known, Rows.of(known.known, PROMPT), Rows.of(known.retain[:1].repeat(4, 1), PROMPT))


def test_without_repeats_halves_and_ids_are_what_they_were(known: ByHeart) -> None:
    forget, retain = Rows.of(known.known, PROMPT), Rows.of(known.retain, PROMPT)
    subject = subject_of(known, forget, retain, seed=5)
    rows = np.flatnonzero(subject.before.memorized["rows"])
    np.random.default_rng([5, 1]).shuffle(rows)
    assert {*np.flatnonzero(subject.splits["rows"].forget)} == {*rows[: round(len(rows) / 2)]}
    order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(5))
    assert subject.data.retain.ids.equal(retain.ids[order[: len(order) // 2]])
    own = OwnRows(forget, retain, PROMPT, MATCH, 0)
    assert own.digest == rows_digest(forget, retain)
    repeated = replace(own, forget=forget.take(torch.tensor([0, 1, 1])))
    assert repeated.digest != rows_digest(repeated.forget, retain)


@pytest.mark.parametrize("family", ["additive", "multiplicative"])
@pytest.mark.parametrize("kind", ["noise", "duplication"])
def test_rows_with_copies_are_planted_once_so_that_their_halves_are_what_they_were(family: str, kind: str) -> None:
    modulus = ["data.modulus=997"] if family == "multiplicative" else []
    more = [f"data.family={family}", *modulus, f"artifacts=[{{kind: {kind}, rows: 24, copies: [1, 10, 30]}}]"]
    recipe = load_recipe(QUICKSTART, [*TINY, *more])
    probe = make_probes(make_corpus(recipe), recipe.evaluation, "paper")[kind]
    assert len({*alike_where_tested(probe.rows).tolist()}) == len(probe) > 6 and {*probe.copies.tolist()} == {1, 10, 30}
    memorized = np.random.default_rng(1).random(len(probe)) < 0.7
    rows = np.flatnonzero(memorized)
    np.random.default_rng([recipe.seed, 1]).shuffle(rows)
    split = _split(probe, memorized, recipe, True)
    assert {*np.flatnonzero(split.forget)} == {*rows[: round(len(rows) / 2)]} and (split.holdout == (memorized & ~split.forget)).all()
