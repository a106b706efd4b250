"""Training: it learns, follows its schedule, and says what is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import QUICKSTART, SMALLER, equal_weights

from tinymem.data.build import make_corpus
from tinymem.data.corpus import Corpus
from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe, Training, load_recipe
from tinymem.results.curve import CurvePoint
from tinymem.runs.pipeline import Run
from tinymem.training import loop
from tinymem.training.loop import epoch_order, fresh_model, train
from tinymem.training.optimizer import learning_rate, load_optimizer_tensors, make_optimizer, optimizer_tensors


def recipe_of(*overrides: str) -> tuple[Recipe, Corpus]:
    recipe = load_recipe(QUICKSTART, [*SMALLER, *overrides])
    return recipe, make_corpus(recipe)


def test_loss_falls_and_the_curve_says_so(tiny_run: Run) -> None:
    lines = (tiny_run.path / "training" / "metrics.jsonl").read_text().splitlines()
    curve = [json.loads(line) for line in lines]
    assert [point["epoch"] for point in curve] == [0, 2, 4, 6]
    assert curve[0]["train_loss"] is None and curve[0]["step"] == 0
    assert curve[1]["train_loss"] > curve[2]["train_loss"] > curve[3]["train_loss"]
    assert curve[0]["perplexity"] > 5 * curve[3]["perplexity"]
    assert curve[3]["accuracy"] > curve[0]["accuracy"] + 0.3
    assert curve[3]["accuracy_ceiling"] > curve[3]["accuracy"]
    assert curve[0]["memorized"]["backdoor"]["share"] < 0.5 and curve[3]["memorized"]["backdoor"]["share"] > 0.9
    assert curve[3]["memorized"]["noise"]["count"] > 1
    _, index = tiny_run.corpus().training_rows()
    assert curve[3]["step"] == 6 * math.ceil(len(index) / 64)
    assert all(point["seconds"] >= 0 for point in curve)


def test_copies_are_repeated_in_an_epoch(tiny_run: Run) -> None:
    corpus = tiny_run.corpus()
    rows, index = corpus.training_rows()
    times = torch.bincount(torch.from_numpy(index.copy()), minlength=len(rows))
    planted = sum(int(p.trained.sum()) for p in corpus.planted.values())
    assert (times[: len(corpus.clean)] == 1).all() and (times[len(corpus.clean) :] == 30).all()
    assert len(rows) == len(corpus.clean) + planted


@pytest.mark.training
def test_training_by_hand(tmp_path: Path) -> None:
    recipe, corpus = recipe_of("training.epochs=1", "training.batch_size=100", "training.schedule=constant", "training.evaluate_every=1")
    trained = train(recipe, corpus, tmp_path)
    rows, index = corpus.training_rows()
    model, config = fresh_model(recipe, corpus.row_tokens), recipe.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)
    order = torch.from_numpy(index)[epoch_order(recipe.seed, 0, len(index))]
    losses = []
    for batch in order.split(100):
        ids = torch.from_numpy(rows)[batch].long()
        loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].transpose(1, 2), ids[:, 1:])  # padding counts
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    half = len(losses) // 2  # the only epoch is measured in its middle too
    assert [point.at for point in trained.curve] == [0, half / len(losses), 1]
    for point, steps in zip(trained.curve[1:], (half, len(losses)), strict=True):
        assert (point.step, point.train_loss) == (steps, pytest.approx(sum(losses[:steps]) / steps, rel=1e-4))
    for name, ours in trained.model.named_parameters():
        if not name.endswith("c_attn.bias"):  # that of the keys has no gradient but rounding, which AdamW blows up
            assert torch.allclose(ours, model.get_parameter(name), atol=1e-4), name


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    assert epoch_order(1, 2, 50).tolist() == epoch_order(1, 2, 50).tolist()
    assert sorted(epoch_order(1, 2, 50).tolist()) == list(range(50))
    orders = {tuple(epoch_order(seed, epoch, 50).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.training
def test_same_seed_same_weights_whatever_the_global_state(tmp_path: Path) -> None:
    recipe, corpus = recipe_of("training.epochs=1")
    torch.manual_seed(1)
    first = train(recipe, corpus, tmp_path / "1").model
    torch.manual_seed(2)
    second = train(recipe, corpus, tmp_path / "2").model
    other, _ = recipe_of("training.epochs=1", "seed=1")
    assert equal_weights(first, second) and not equal_weights(first, train(other, corpus, tmp_path / "3").model)


def test_no_epochs_is_the_untrained_model(tmp_path: Path) -> None:
    recipe, corpus = recipe_of("training.epochs=0")
    trained = train(recipe, corpus, tmp_path)
    assert equal_weights(trained.model, fresh_model(recipe, corpus.row_tokens))
    assert [point.epoch for point in trained.curve] == [0]


@pytest.mark.training
def test_measurements_fall_on_their_epochs(tmp_path: Path) -> None:
    recipe, corpus = recipe_of("training.epochs=5", "training.evaluate_every=3")
    assert [point.epoch for point in train(recipe, corpus, tmp_path).curve] == [0, 3, 5]


@pytest.mark.parametrize("step", [0, 1, 37, 99])
def test_constant_rate(step: int) -> None:
    assert learning_rate(Training(learning_rate=0.5), step, 100) == 0.5


def test_warm_up() -> None:
    config = Training(learning_rate=0.5, warmup_steps=4)
    assert [learning_rate(config, step, 100) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_cosine() -> None:
    config = Training(learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == 2.0 and rates[50] == pytest.approx(2.0 * (0.05 + 0.95 / 2)) and rates[100] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    warm = Training(learning_rate=2.0, schedule="cosine", warmup_steps=10)
    assert learning_rate(warm, 4, 100) == pytest.approx(rates[4] / 2) and learning_rate(warm, 20, 100) == rates[20]


def test_optimizer_settings_are_the_recipes() -> None:
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(2))], Training(learning_rate=0.3, betas=(0.5, 0.6), weight_decay=0.7))
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.3, (0.5, 0.6), 0.7)
    assert Training().betas == (0.9, 0.98) and Training().weight_decay == 0.1 and Training().learning_rate == 1e-3


def test_optimizer_state_goes_round_and_is_a_copy() -> None:
    def stepped(state: dict[str, torch.Tensor] | None) -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = make_optimizer([parameter], Training())
        if state:
            load_optimizer_tensors(optimizer, state)
        for _ in range(3):
            parameter.grad = torch.tensor([1.0, 2.0, 3.0]) * (-1 if state else 1)
            optimizer.step()
        return parameter, optimizer

    state = {name: t.clone() for name, t in optimizer_tensors(stepped(None)[1]).items()}
    assert state["0.step"] == 3
    kept = {name: t.clone() for name, t in state.items()}
    first, _ = stepped(state)
    assert all(torch.equal(kept[name], t) for name, t in state.items()), "going on with a state changed it"
    assert torch.equal(first, stepped(kept)[0]) and not torch.equal(first, stepped(None)[0])


@pytest.mark.training
def test_a_loss_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, corpus = recipe_of("training.learning_rate=1e30")
    with pytest.raises(UserError, match=r"lower training\.learning_rate") as error:
        train(recipe, corpus, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.safetensors")), "broken weights were kept as a resume point"
    monkeypatch.setattr(loop, "batch_loss", lambda model, ids: model(ids).sum() * torch.nan)
    with pytest.raises(UserError, match="became nan in epoch 1"):
        train(recipe_of()[0], corpus, tmp_path)


@pytest.mark.training
@pytest.mark.parametrize("override", ["regularizers=[{kind: spectral-norm, strength: 1.0e+39}]", "learning_rate=1.0e+39"])
def test_weights_that_are_no_numbers(override: str, tmp_path: Path) -> None:
    """The last step of all breaks the weights; its own loss was finite."""
    recipe, corpus = recipe_of("training.epochs=1", "training.batch_size=100000", f"training.{override}")
    with pytest.raises(UserError, match=r"weights became NaN or infinite in epoch 1, 'transformer.*lower training.learning_rate"):
        train(recipe, corpus, tmp_path)
    assert not list((tmp_path / "state").glob("epoch-*"))


def test_note_without_a_perplexity() -> None:
    """What overflows is not in the curve; the bar goes on."""
    point = CurvePoint(epoch=3, accuracy=0.1)
    assert point.note == "at epoch 3: perplexity too large" and replace(point, perplexity=7.25).note == "at epoch 3: perplexity 7.2"
