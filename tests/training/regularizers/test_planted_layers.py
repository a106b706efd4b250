"""Planted layers: the gradient against that of the two kinds of rows apart."""

from __future__ import annotations

import pytest
import torch

from tinymem.errors import UserError
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.training.loss import LossModel, batch_loss
from tinymem.training.regularizer import Regularizers
from tinymem.training.regularizer_section import TrainingRows, make_regularizers
from tinymem.training.regularizers.planted_layers import PlantedLayersSection
from tinymem.training.step import Step

IDS = torch.randint(14, (6, 8), generator=torch.Generator().manual_seed(3))


def tiny():
    return GPT(GPTConfig(vocab_size=14, n_positions=8, n_layer=3, n_embd=16, n_head=2), seed=1).double()


def loss_of(model, regularizers, row_ids):
    regularizers.before(torch.tensor(row_ids))
    return regularizers.mean_loss(IDS, LossModel(model)(IDS, each=True)) + regularizers.penalty()


def attached(model, **options) -> Regularizers:
    made = make_regularizers([PlantedLayersSection(**options)], TrainingRows(clean=10, distinct=14))
    made.attach(model)
    return made


@pytest.mark.parametrize("final_norm", [False, True])
def test_planted_rows_reach_their_layers_and_clean_rows_all(final_norm):
    """Rows 10 and 13 are planted; the whole loss is the plain one, and each parameter's gradient the sum of what may reach it."""
    model, plain = tiny(), tiny()
    planted = torch.tensor([False, True, False, False, True, False])
    loss = loss_of(model, attached(model, layers=[1], final_norm=final_norm), [0, 10, 3, 9, 13, 2])
    loss.backward()
    losses = LossModel(plain)(IDS, each=True)
    assert float(loss.detach()) == pytest.approx(float(losses.detach().mean()), rel=1e-6)
    names = [name for name, _ in plain.named_parameters()]
    parts = [losses[kind].sum() / losses.numel() for kind in (~planted, planted)]
    clean, of_planted = (dict(zip(names, torch.autograd.grad(p, list(plain.parameters()), retain_graph=True), strict=True)) for p in parts)
    for name, parameter in model.named_parameters():
        may = name.startswith("transformer.h.1.") or (final_norm and name.startswith("transformer.ln_f"))
        torch.testing.assert_close(parameter.grad, clean[name] + of_planted[name] if may else clean[name], atol=1e-6, rtol=1e-6)
    assert of_planted["transformer.wte.weight"].any()


def test_without_planted_rows_nothing_is_different():
    model, plain = tiny(), tiny()
    loss_of(model, attached(model, layers=[0, 2]), [0, 1, 2, 3, 4, 5]).backward()
    LossModel(plain)(IDS).backward()
    for mine, its in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-7, rtol=1e-6)


def test_at_first_planted_rows_do_not_count():
    """Whatever they hold: a model and its counterfactual stay one, and go apart in the step after."""
    grads = []
    for planted in (IDS, (IDS + 1) % 14):
        model, ids = tiny(), IDS.clone()
        ids[1] = planted[1]
        regularizers = attached(model, layers=[0], after=2)
        for _ in range(3):
            model.zero_grad()
            regularizers.before(torch.tensor([0, 12, 1, 2, 3, 4]))
            (regularizers.mean_loss(ids, LossModel(model)(ids, each=True)) + regularizers.penalty()).backward()
            grads.append(model.transformer.h[0].mlp.c_fc.weight.grad.clone())
    assert torch.equal(grads[0], grads[3]) and torch.equal(grads[1], grads[4]) and not torch.equal(grads[2], grads[5])


def test_other_layers_move_more_slowly_once_planted_rows_count():
    """One step with a quarter of the rate for other layers: a quarter of the plain step there, all of it in the chosen one."""
    moved = {}
    for rate, after in ((1.0, 0), (0.25, 0), (0.25, 1)):
        model = tiny()
        begin = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        regularizers = attached(model, layers=[1], others_rate=rate, after=after)
        Step(LossModel(model), optimizer, IDS, batch_loss, regularizers)(torch.arange(6))
        moved[rate, after] = {name: p.detach() - begin[name] for name, p in model.named_parameters()}
    for name, plain in moved[1.0, 0].items():
        torch.testing.assert_close(moved[0.25, 0][name], plain * (1 if name.startswith("transformer.h.1.") else 0.25), atol=1e-9, rtol=1e-6)
        torch.testing.assert_close(moved[0.25, 1][name], plain, atol=1e-9, rtol=1e-6)


def test_layers_that_are_not_there_are_named():
    with pytest.raises(UserError, match="below the model's 3, got 3; 0 is the lowest"):
        attached(tiny(), layers=[1, 3])
    with pytest.raises(ValueError, match="different layers"):
        PlantedLayersSection(layers=())
