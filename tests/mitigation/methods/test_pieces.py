"""Batches in pieces: sums are those of whole batches, also when memory runs out in the middle of a backward pass."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods import pieces as module
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron import act
from tinymem.mitigation.methods.pieces import Pieces, add_gradients, rows_at_once
from tinymem.mitigation.methods.weight import durable
from tinymem.models.adapters import mlp_parameters
from tinymem.testing import tiny_case


class Scarce:
    """Adds gradients up, and runs out of memory in a pass of more than `room` rows, after it has counted some of its gradients."""

    def __init__(self, room: int) -> None:
        self.room, self.rows, self.calls = room, 0, 0
        self.totals: dict[str, Tensor] = {}

    def objective(self, model: nn.Module, rows: Rows, index: Tensor) -> Tensor:
        self.rows, self.calls = len(index), 0
        return row_losses(model, rows.take(index)).sum()

    def add(self, name: str, gradient: Tensor) -> None:
        self.calls += 1
        if self.rows > self.room and self.calls > 3:
            raise torch.OutOfMemoryError("too many rows")
        self.totals[name] = self.totals.get(name, torch.zeros_like(gradient)) + gradient


@pytest.mark.parametrize("room", [1, 2, 5])
def test_out_of_memory_halves_the_pieces_and_changes_no_sum(room: int) -> None:
    model, data = tiny_case("gpt-neox")
    rows, leaves = data.retain, mlp_parameters(model)
    expected = torch.autograd.grad(row_losses(model, rows).sum(), list(leaves.values()))
    scarce, pieces = Scarce(room), Pieces(model, 12, gradients=True)
    with warnings.catch_warnings(record=True, action="always") as said:
        add_gradients(pieces, torch.arange(10), lambda at: scarce.objective(model, rows, at), leaves, scarce.add)
    assert str(said[0].message) == "out of memory with 10 rows at once: batches go on in pieces of 5, and count as before"
    assert pieces.rows is not None and pieces.rows <= 5
    for name, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(scarce.totals[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    assert all(p.grad is None for p in model.parameters())


def test_a_row_that_does_not_fit_is_an_error() -> None:
    model, data = tiny_case("gpt-neox")
    scarce, leaves = Scarce(0), mlp_parameters(model)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="out of memory"):
        add_gradients(
            Pieces(model, 12, gradients=True), torch.arange(2), lambda at: scarce.objective(model, data.retain, at), leaves, scarce.add
        )
    assert all(p.grad is None for p in model.parameters())


def test_scores_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_case("gpt-neox")

    def scores() -> dict[str, Tensor]:
        return {**act.act(model, data, act.ActConfig()).values, **durable.durable(model, data, durable.DurableConfig()).values}

    whole = scores()
    monkeypatch.setattr(module, "rows_at_once", lambda *_, **__: 2)
    for name, part in scores().items():
        torch.testing.assert_close(part, whole[name], atol=1e-6, rtol=1e-5)


def test_only_large_models_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_case("gpt-neox")[0]
    assert rows_at_once(model, 12, gradients=True) is None
    monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(module, "ACTIVATIONS", 10**6)
    passes = rows_at_once(model, 12, gradients=False), rows_at_once(model, 12, gradients=True)
    assert passes[0] is not None and passes[1] is not None and 1 < passes[1] < passes[0]


@pytest.mark.parametrize("over", ["row", "suffix"])
def test_half_precision_logits_give_the_losses_of_fp32(over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, and of the suffix alone: losses and gradients are those of the whole bf16 logits in fp32."""
    from tinymem.mitigation.methods import losses

    monkeypatch.setattr(losses, "LOGITS", 7 * 17)
    monkeypatch.setattr(losses, "FEW", 0)
    model, data = tiny_case("gpt-neox")
    model = model.bfloat16()
    found = row_losses(model, data.forget, over)  # type: ignore[arg-type]
    every = model(data.forget.ids, use_cache=False).logits[:, :-1].float()
    expected_BT = torch.nn.functional.cross_entropy(every.transpose(1, 2), data.forget.ids[:, 1:], reduction="none")
    expected = expected_BT[:, 4:].mean(1) if over == "suffix" else expected_BT.mean(1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = list(mlp_parameters(model).values())
    ours, plain = (torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), weights)]).float() for loss in (found, expected))
    assert torch.nn.functional.cosine_similarity(ours, plain, dim=0) > 0.999
