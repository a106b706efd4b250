"""The step: a golden loss, its head for large vocabularies, and what a recipe's options choose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import QUICKSTART, SMALLER, random_gpt
from torch import nn

from tinymem.data.build import make_corpus
from tinymem.errors import UserError
from tinymem.recipe.recipe import Training, load_recipe, parse_recipe
from tinymem.training import loss
from tinymem.training.loop import train
from tinymem.training.loss import LossModel, batch_loss, head_losses
from tinymem.training.optimizer import make_optimizer
from tinymem.training.precision import precision_context, resolve_precision, worth_compiling
from tinymem.training.step import Step

ROWS = torch.arange(64)[:, None] * 7 % 11 + torch.arange(24) % 3  # learnable, the same everywhere
# Mean losses of steps 0, 20, 40, 60, 80 and 99, as the first version of the step computed them (eager, fp32, one CPU thread).
GOLDEN = [3.02681, 0.278628, 0.05002, 0.022398, 0.014287, 0.010056]


def losses_of(steps: int, wrap: Callable[[nn.Module], nn.Module] = lambda model: model, precision: str = "fp32") -> list[float]:
    model = LossModel(random_gpt(n_embd=32).train())
    optimizer = make_optimizer(model.parameters(), Training(learning_rate=3e-3))
    step = Step(wrap(model), optimizer, ROWS.to(torch.uint8), batch_loss, precision=precision_context(precision, "cpu"))
    found = []
    for i in range(steps):
        step.loss_sum.zero_()
        step(torch.arange(i * 16, i * 16 + 16) % 64)
        found.append(float(step.loss_sum))
    return found


@pytest.fixture(scope="module")
def eager() -> list[float]:
    return losses_of(100)


@pytest.mark.slow
def test_golden_losses(eager: list[float]) -> None:
    assert [eager[i] for i in (0, 20, 40, 60, 80, 99)] == pytest.approx(GOLDEN, abs=1e-4)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_traced_is_eager(eager: list[float]) -> None:
    """What torch.compile traces, run without generated code, whose making takes minutes here: `bench train` compares that on a GPU."""
    assert losses_of(100, partial(torch.compile, backend="aot_eager", fullgraph=True)) == pytest.approx(eager, abs=1e-4)


@pytest.mark.slow
def test_bf16_follows_fp32(eager: list[float]) -> None:
    found = losses_of(60, precision="bf16")
    assert found[:5] == pytest.approx(eager[:5], rel=0.02) and found != eager[:60]
    assert sum(found[50:]) == pytest.approx(sum(eager[50:60]), rel=0.15)


def test_weights_and_optimizer_stay_fp32() -> None:
    model = LossModel(random_gpt())
    optimizer = make_optimizer(model.parameters(), Training())
    Step(model, optimizer, ROWS, batch_loss, precision=precision_context("bf16", "cpu"))(torch.arange(8))
    tensors = [*model.parameters(), *(t for state in optimizer.state.values() for t in state.values())]
    assert all(t.dtype == torch.float32 for t in tensors)


@pytest.mark.parametrize("piece", [1, 301 * 7, 2**26])
def test_head_in_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_A_TIME", piece)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 32, generator=generator, requires_grad=True) for n in (50, 301))
    targets, factors = torch.randint(301, (50,), generator=generator), torch.rand(50, generator=generator)
    ours = head_losses(hidden, weight, targets)
    theirs = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-5)
    for mine, its in zip(
        torch.autograd.grad((ours * factors).sum(), (hidden, weight)),
        torch.autograd.grad((theirs * factors).sum(), (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(mine, its, atol=1e-5)


def test_other_widths_than_the_kernels() -> None:
    """A kernel's tile is a power of two and fits on the chip; 96 and 768 are embeddings too."""
    assert loss.fuses("cuda", torch.bfloat16, 128)
    assert not any(loss.fuses("cuda", torch.bfloat16, width) for width in (8, 48, 96, 256, 512, 768))
    assert not loss.fuses("cpu", torch.bfloat16, 128) and not loss.fuses("cuda", torch.float32, 128)


@pytest.mark.parametrize("each", [False, True])
def test_large_vocabulary_has_the_same_loss(each: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LossModel(random_gpt(scale=3.0))
    plain = model(ROWS, each=each)
    (gradient,) = torch.autograd.grad(plain.sum(), model.gpt.transformer.wte.weight)
    monkeypatch.setattr(loss, "LARGE_VOCABULARY", 1)
    lean = model(ROWS, each=each)
    assert lean.shape == plain.shape and torch.allclose(lean, plain, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(lean.sum(), model.gpt.transformer.wte.weight)[0], gradient, rtol=1e-3, atol=1e-4)


def test_choices() -> None:
    assert resolve_precision("auto", "cpu") == "fp32" and resolve_precision("bf16", "cpu") == "bf16"
    assert not worth_compiling(True, "cpu", 10**6)
    assert worth_compiling(True, "cuda", 1) and not worth_compiling(False, "cuda", 10**9)
    assert worth_compiling("auto", "cuda", 10**6) and not worth_compiling("auto", "cuda", 1000)


def test_defaults_leave_the_run_its_name() -> None:
    plain = load_recipe(QUICKSTART)
    assert plain.run_id() == load_recipe(QUICKSTART, ["training.regularizers=[]", "training.compile=true"]).run_id()
    assert not {"regularizers", "precision", "compile"} & set(plain.model_key()["training"])
    others = {load_recipe(QUICKSTART, [o]).run_id() for o in ("training.precision=bf16", "training.regularizers=[{kind: goldfish}]")}
    assert len(others | {plain.run_id()}) == 3


@pytest.mark.parametrize(
    ("regularizers", "message"),
    [
        ([{"kind": "goldfish", "widht": 3}], "unknown key 'training.regularizers.0.goldfish.widht'; did you mean 'width'"),
        ([{"kind": "goldfsh"}], "unknown regularizer 'goldfsh'; did you mean 'goldfish'?"),
        ([{"kind": "goldfish"}, {"kind": "goldfish"}], "at most once"),
        ([{"kind": "mem-sinks"}, {"kind": "example-tied-dropout"}], "tie the same neurons"),
        ([{}], "regularizers.0.kind, as in `kind: goldfish`"),
        ([{"kind": "goldfish", "seed": 10**20}], "goldfish.seed': input should be less than or equal to"),
        ([{"kind": "mem-sinks", "seed": 10**20}], "mem-sinks.seed': input should be less than or equal to"),
        ([{"kind": "goldfish", "width": 10**15}], "width': input should be less than or equal to"),
        ([{"kind": "goldfish", "width": 150}], "expected goldfish's width of at most 149 in rows of 150 tokens, got 150"),
        ([{"kind": "loss-truncation", "window": 10**16}], "window': input should be less than or equal to"),
        ([{"kind": "loss-truncation", "refresh": 10**24}], "refresh': input should be less than or equal to"),
        ([{"kind": "mem-sinks", "inference": "ids"}], "expected ids with `inference: ids`"),
        ([{"kind": "mem-sinks", "ids": [3]}], "and with it alone, got inference off and ids (3,)"),
        ([{"kind": "mem-sinks", "excluded": [-1]}], "excluded.0': input should be greater than or equal to 0"),
        ([{"kind": "mem-sinks", "hash": "published", "seed": 4}], "expected no seed and no salt_layers with `hash: published`"),
    ],
)
def test_refusals(regularizers: list[dict[str, object]], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_recipe({"training": {"regularizers": regularizers}})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    ["betas=[1, 0.98]", "betas=[0.9, 1]", "betas=[-0.1, 0.9]", "batch_size=100000000000000000000", "energy.pue=1e308"],
)
def test_numbers_that_training_cannot_use(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"recipe key 'training\.{key}.*': input should be (less|greater) than") as error:
        load_recipe(QUICKSTART, [f"training.{override}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["inference: ids, ids: [1000000]", "excluded: [1000000]"])
def test_rows_that_are_not_there(option: str, tmp_path: Path) -> None:
    recipe = load_recipe(QUICKSTART, [*SMALLER, f"training.regularizers=[{{kind: mem-sinks, {option}}}]"])
    with pytest.raises(UserError, match="expected ids and excluded of mem-sinks below the number of distinct training rows, "):
        train(recipe, make_corpus(recipe), tmp_path)
