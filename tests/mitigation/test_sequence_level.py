"""Sequence-level localization: one edit per row, all rows at once, equals as many runs with one row each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tinymem.data.rows import Rows
from tinymem.errors import UserError
from tinymem.mitigation.ablation import Refused, ablate, select
from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.methods.neuron._common import as_scores
from tinymem.mitigation.sequence_level import edited_by_row, scores_by_row, select_by_row
from tinymem.models.adapters import logits
from tinymem.testing import FAMILIES, config_of, tiny_case

METHODS = ("zero", "act", "ig", "slim", "hard-concrete", "nemo", "random-neurons")
# Few steps, and gates that do not move in step: ranks of nearly equal parameters are rounding's.
QUICK = {"epochs": 4, "penalty": 1.0, "steps": 5, "refine": False, "ratio": 0.1}


def case(family):
    """A tiny model in double precision and three rows whose prompts and ends differ."""
    model, data = tiny_case(family)
    forget = Rows.of(data.forget.ids[:3], torch.tensor([5, 3, 1]), torch.tensor([11, 12, 9]))
    return model.double(), replace(data, forget=forget)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_rows_together_equal_rows_apart(family, name):
    model, data = case(family)
    method = UNLEARNERS.get(name)
    config = config_of(method, **QUICK)
    together = scores_by_row(method, model, data, config)
    assert together.shape == (3, 2, 64)
    for n in range(3):
        alone = scores_by_row(method, model, replace(data, forget=data.forget.take(torch.tensor([n]))), config)
        if name in ("slim", "hard-concrete"):  # ranks
            assert (together[n] != alone[0]).double().mean() < 0.05
        else:
            torch.testing.assert_close(together[n], alone[0], atol=1e-5, rtol=1e-4)
    assert not torch.equal(together[0], together[1])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_row_runs_under_its_own_edit(family):
    """One pass with a gate per row gives the logits of the models that `select` and `ablate` make of each row's scores."""
    model, data = case(family)
    method = UNLEARNERS.get("random-neurons")
    for options in ({"ratio": 0.3}, {"ratio": 0.3, "skip_bottom": True}, {"ratio": 0.1, "scope": "model"}):
        config = method.config(**options)
        scores = scores_by_row(method, model, data, config)
        chosen = select_by_row(model, scores, config)
        with edited_by_row(model, chosen):
            together = logits(model, data.forget.ids)
        for n in range(3):
            mask = select(model, as_scores(model, scores[n], config), config)
            assert int(chosen[n].sum()) == mask.count() > 0
            torch.testing.assert_close(together[n], logits(ablate(model, mask), data.forget.ids[n : n + 1])[0])
    with pytest.raises(Refused, match="smallest"):
        select_by_row(model, scores, method.config(ratio=1e-9))


def test_methods_without_rows_say_so():
    model, data = tiny_case("gpt")
    with pytest.raises(UserError, match="rows apart"):
        scores_by_row(UNLEARNERS.get("balanced-subnet"), model, data, None)
