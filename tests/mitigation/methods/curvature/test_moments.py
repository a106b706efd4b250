"""The pass that measures curvature against enumerated labels, autograd's own gradients and plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.curvature._moments import LOGITS, TOKENS, batch_rows, counted, drawn, gradients, moments, objectives_of
from tinymem.mitigation.methods.curvature._projections import Projection, projections
from tinymem.testing import FAMILIES, tiny_case

V, Q = 5, 3
pytestmark = pytest.mark.usefixtures("one_thread")


class LinearSoftmax(nn.Module):
    """Logits W f(token), with fixed features f."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(V, Q, generator=generator)
        self.head = nn.Linear(Q, V, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(scale * torch.randn(V, Q, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.features[ids])


def enumerated(scores_nV: Tensor, _gold: Tensor) -> list[Tensor]:
    """A loss for each label, whose gradient at a position is that of its cross-entropy times the root of its probability."""
    log_nV = scores_nV.log_softmax(1)
    return [-(log_nV[:, y] * (log_nV[:, y] / 2).exp().detach()).sum() for y in range(V)]


def fisher(model: LinearSoftmax, rows: Rows) -> Tensor:
    """F [V Q, V Q]: the mean over positions of E_y[grad grad^T], one label and position at a time."""
    found = []
    for features, valid in zip(model.features[rows.ids].flatten(0, 1), counted(rows).flatten(), strict=True):
        log_p = model.head(features).log_softmax(0)
        for y in range(V) if valid else ():
            grad = torch.autograd.grad(-log_p[y], model.head.weight, retain_graph=True)[0].flatten()
            found.append(log_p[y].exp().detach() * torch.outer(grad, grad))
    return torch.stack(found).sum(0) / counted(rows).sum()


def kronecker(model: LinearSoftmax, rows: Rows) -> Tensor:
    [found] = moments(model, rows, [Projection("head.weight", model.head)], enumerated)
    return torch.kron(found.G_PP, found.A_QQ).float()


def test_the_fisher_matrix_of_one_example_is_the_product_of_its_factors() -> None:
    model, rows = LinearSoftmax(1.0), Rows.of(torch.tensor([[2, 4]]))
    torch.testing.assert_close(kronecker(model, rows), fisher(model, rows))


def test_so_is_that_of_any_rows_where_the_weights_are_zero_and_not_elsewhere() -> None:
    rows = Rows.of(torch.tensor([[0, 1, 2, 3], [4, 4, 0, 2]]))
    torch.testing.assert_close(kronecker(LinearSoftmax(0.0), rows), fisher(LinearSoftmax(0.0), rows))
    assert not torch.allclose(kronecker(LinearSoftmax(1.0), rows), fisher(LinearSoftmax(1.0), rows), rtol=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_flows_gives_the_gradient_of_every_weight(family: str) -> None:
    model, data = tiny_case(family)
    found = projections(model, "all")
    [flows] = gradients(model, data.retain, found, objectives_of("gold", torch.Generator()))
    output = model(data.retain.ids)
    scores = output if isinstance(output, Tensor) else output.logits
    loss = F.cross_entropy(scores[:, :-1].flatten(0, 1), data.retain.ids[:, 1:].flatten(), reduction="sum")
    expected = torch.autograd.grad(loss, [model.get_parameter(p.name) for p in found])
    assert len(found) >= 8 and len({p.name for p in found}) == len(found)
    for projection, flow, gradient in zip(found, flows, expected, strict=True):
        made_PQ = flow.gradients_BTP.flatten(0, 1).T @ flow.inputs_BTQ.flatten(0, 1)
        torch.testing.assert_close(made_PQ, gradient.T if projection.transposed else gradient, atol=1e-5, rtol=1e-4)


def test_batches_of_one_row_and_of_all_agree_and_padding_counts_for_nothing() -> None:
    model, data = tiny_case("gpt")
    ends = torch.tensor([12, 9, 7, 12, 3, 12, 11, 8, 12, 10])
    rows = Rows.of(data.retain.ids, prompt=2, end=ends)
    other = Rows.of(torch.where(torch.arange(12)[None, :] < ends[:, None], rows.ids, 5), prompt=2, end=ends)
    found = projections(model)
    one, all_rows, padded = (
        moments(model, part, found, objectives_of("sampled", torch.Generator().manual_seed(4)), batch=batch)
        for part, batch in ((rows, 1), (rows, 64), (other, 64))
    )
    for a, b, c in zip(one, all_rows, padded, strict=True):
        for left, right in ((a, b), (c, b)):
            torch.testing.assert_close(left.A_QQ, right.A_QQ, rtol=1e-5, atol=1e-8)
            torch.testing.assert_close(left.G_PP, right.G_PP, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("vocabulary", "device", "at_once"), [(8192, "cuda", 2048), (49_152, "cuda", 341), (49_152, "cpu", 128)])
def test_a_batch_holds_as_many_logits_as_there_is_room_for(
    vocabulary: int, device: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = nn.Embedding(vocabulary, 1), Rows.of(torch.zeros(2, 32, dtype=torch.int64))
    monkeypatch.setitem(TOKENS, "cpu", TOKENS[device])
    assert batch_rows(model, rows) == at_once and 8 * vocabulary * 32 * at_once <= LOGITS


def test_moments_are_means_over_the_positions_that_count() -> None:
    model, rows = LinearSoftmax(1.0), Rows.of(torch.tensor([[0, 1, 2, 3], [4, 3, 0, 0]]), end=torch.tensor([4, 2]))
    [found] = moments(model, rows, [Projection("head.weight", model.head)], objectives_of("gold", torch.Generator()))
    a_nQ, gold = model.features[torch.tensor([0, 1, 2, 4])], F.one_hot(torch.tensor([1, 2, 3, 3]), V)
    g_nP = (model.head(a_nQ).softmax(1) - gold).detach()
    torch.testing.assert_close(found.A_QQ.float(), a_nQ.T @ a_nQ / 4)
    torch.testing.assert_close(found.G_PP.float(), g_nP.T @ g_nP / 4)


def test_labels_are_drawn_by_the_models_probabilities_whatever_the_pieces() -> None:
    scores = torch.tensor([[0.0, 1.0, -1.0, -50.0]]).expand(20_000, 4)
    labels = drawn(scores, torch.Generator().manual_seed(1))
    shares = torch.bincount(labels, minlength=4) / len(labels)
    torch.testing.assert_close(shares, scores[0].softmax(0), atol=0.012, rtol=0)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(torch.cat([drawn(part, generator) for part in scores.split(37)]), labels)
