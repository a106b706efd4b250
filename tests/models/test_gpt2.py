"""Our GPT-2: the paper's parameter counts, its initialization, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import equal_weights, random_gpt

from tinymem.errors import UserError
from tinymem.models.checkpoint import math_config
from tinymem.models.gpt2 import GPT, GPTConfig

COUNTS = [
    (14, 2, 417_792),
    (14, 4, 814_336),
    (14, 8, 1_607_424),
    (14, 16, 3_193_600),
    (50257, 2, 6_848_896),
    (50257, 4, 7_245_440),
    (50257, 8, 8_038_528),
    (50257, 16, 9_624_704),
]


@pytest.mark.parametrize(("vocabulary", "layers", "parameters"), COUNTS)
def test_the_papers_parameter_counts(vocabulary: int, layers: int, parameters: int) -> None:
    with torch.device("meta"):  # counts need no memory
        model = GPT(GPTConfig(vocab_size=vocabulary, n_layer=layers, n_positions=150))
    assert model.parameter_count() == parameters


def test_default_is_the_papers_four_layer_math_model() -> None:
    assert GPT(GPTConfig()).parameter_count() == GPT(math_config()).parameter_count() == 814_336


def test_head_is_tied_to_the_embedding() -> None:
    model = random_gpt()
    assert not any("lm_head" in name for name in model.state_dict())
    ids = torch.tensor([[10, 1, 2]])
    with torch.no_grad():
        hidden = model.transformer(ids)
        assert torch.allclose(model(ids), hidden @ model.transformer.wte.weight.T)


@pytest.mark.parametrize("initializer_range", [None, 0.02])
def test_initialization(initializer_range: float | None) -> None:
    layers, width = 4, 128
    model = GPT(GPTConfig(n_layer=layers, n_embd=width, initializer_range=initializer_range))
    std = initializer_range or 0.8 / math.sqrt(width)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".ln_" in name:
            assert (parameter == 1).all(), name
        else:
            expected = std / math.sqrt(2 * layers) if "c_proj" in name else std
            count, deviation, mean = parameter.numel(), float(parameter.detach().std()), float(parameter.detach().mean())
            assert deviation / expected == pytest.approx(1, abs=5 / math.sqrt(2 * count)), name  # five standard errors
            assert abs(mean) < 5 * expected / math.sqrt(count), name


def test_seed_decides_the_weights() -> None:
    assert equal_weights(random_gpt(3), random_gpt(3))
    assert not torch.equal(random_gpt(3).transformer.wte.weight, random_gpt(4).transformer.wte.weight)


def test_random_state_of_gpus_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    random_gpt(1)
    assert not seeds
    torch.manual_seed(1)
    assert seeds == [1], "this is how torch does it"


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = random_gpt(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert equal_weights(first, random_gpt(1))


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = random_gpt(scale=3)
    ids = torch.randint(14, (2, 24), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 14
    with torch.no_grad():
        one, other = model(ids), model(changed)
    assert torch.allclose(one[:, :12], other[:, :12], atol=1e-6)
    assert not torch.allclose(one[:, 12:], other[:, 12:], atol=1e-2)


def test_positions_matter() -> None:
    model = random_gpt(scale=3)
    with torch.no_grad():
        logits = model(torch.full((1, 6), 5))
    assert not torch.allclose(logits[0, 0], logits[0, 5], atol=1e-3)


def test_too_long_rows_are_refused() -> None:
    model = random_gpt()
    model(torch.zeros(1, 24, dtype=torch.long))
    with pytest.raises(UserError, match=r"at most 24 tokens .*got 25"):
        model(torch.zeros(1, 25, dtype=torch.long))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="try n_embd=132"):
        GPTConfig(n_embd=130, n_head=4)
    with pytest.raises(UserError, match="relu, gelu, gelu_new"):
        GPTConfig(activation_function="swish")


@pytest.mark.parametrize(("name", "at_one"), [("relu", 1.0), ("gelu", 0.8413447), ("gelu_new", 0.8411920)])
def test_activations(name: str, at_one: float) -> None:
    act = random_gpt(activation_function=name).transformer.h[0].mlp.act
    assert act(torch.ones(())).item() == pytest.approx(at_one, abs=1e-6)
    assert act(torch.tensor(-3.0)).item() == pytest.approx(0, abs=1e-2)
