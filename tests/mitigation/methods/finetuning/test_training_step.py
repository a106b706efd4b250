"""Fine-tuning by training's step, which GPUs take: the same update as a plain step."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch

from tinymem.mitigation.methods import pieces
from tinymem.mitigation.methods.finetuning._common import FinetuningConfig, _plain_step, training_step
from tinymem.models.gpt2 import GPT, Attention, causal_attention
from tinymem.testing import tiny_case
from tinymem.training.kernels.attention import row_attention_in
from tinymem.training.optimizer import make_optimizer
from tinymem.training.step import Step
from tinymem.training.whole_step import choice


@pytest.mark.parametrize("steps", [1, 100])
def test_training_takes_the_plain_step(steps: int) -> None:
    model, data = tiny_case("gpt")
    assert isinstance(model, GPT)
    edits, device = [], torch.device("cpu")
    for make in (partial(training_step, steps=steps, batch_size=3), partial(_plain_step, length_N=None)):
        edited = deepcopy(model).train()
        step = make(edited, make_optimizer(edited.parameters(), FinetuningConfig()), data.retain.ids.to(torch.int16), device)
        for index in torch.arange(8).split(3):  # the last one is smaller
            step(index)
        edits.append(edited)
    for (name, one), two, before in zip(edits[0].named_parameters(), edits[1].parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5, msg=name)
        assert not torch.equal(one, before)


def test_training_takes_the_kernels_step_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(Step):
        """Stands for the kernels' step."""

    asked: list[choice.Training] = []
    monkeypatch.setattr(choice, "kernel_step", lambda facts: asked.append(facts) or Taken)
    model, data = tiny_case("gpt")
    optimizer = make_optimizer(model.parameters(), FinetuningConfig())
    step = training_step(model, optimizer, data.retain.ids, torch.device("cpu"), steps=7, batch_size=3)
    assert isinstance(step, Taken)
    assert [(facts.steps, facts.batch_size, facts.row_tokens, facts.kernels) for facts in asked] == [(7, 3, 12, "auto")]


def test_a_batch_in_pieces_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of different lengths, so that pieces weigh by their tokens."""
    model, data = tiny_case("gpt-neox")
    lengths, edits = torch.tensor([3, 12, 7, 5, 11, 4, 9, 12]), []
    for rows in (None, 3):
        monkeypatch.setattr(pieces, "rows_at_once", lambda *_, rows=rows, **__: rows)
        edited = deepcopy(model)
        optimizer = torch.optim.SGD(edited.parameters(), lr=1.0)
        _plain_step(edited, optimizer, data.retain.ids[:8], torch.device("cpu"), length_N=lengths)(torch.arange(8))
        edits.append(edited)
    for one, two, before in zip(*(edited.parameters() for edited in (*edits, model)), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
        assert not torch.equal(one, before)


def test_the_attention_of_training_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(model: torch.nn.Module) -> list[Attention]:
        return [module for module in model.modules() if isinstance(module, Attention)]

    def use(gpt: torch.nn.Module) -> None:
        for module in blocks(gpt):
            module.attend = max

    monkeypatch.setattr("tinymem.training.kernels.attention.use_row_attention", use)

    model, _ = tiny_case("gpt")
    with pytest.raises(ZeroDivisionError), row_attention_in(model):
        assert [module.attend for module in blocks(model)] == [max] * 2
        _ = 1 / 0
    assert [module.attend for module in blocks(model)] == [causal_attention] * 2
    other, _ = tiny_case("gpt-neox")
    with row_attention_in(other):
        assert not blocks(other)
