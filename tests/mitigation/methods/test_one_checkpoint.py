"""One checkpoint gives one edit, whichever class holds it: ours keeps matrices [out, in], transformers' GPT-2 keeps them [in, out]."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tinymem.mitigation.ablation import AblationConfig, Scores, select
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply
from tinymem.mitigation.methods.weight import _draws
from tinymem.mitigation.methods.weight._draws import uniform
from tinymem.mitigation.methods.weight._learned_mask import initial_scores
from tinymem.models.adapters import in_out, mlp_parameters
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.gpt2_folder import TRANSPOSED
from tinymem.testing import QUICK, config_of, tiny_case

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module, MitigationData]:
    """A checkpoint in our class and in transformers', and the data of a method."""
    from transformers import GPT2LMHeadModel

    model, data = tiny_case("gpt")
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():  # fresh biases are all 0, and tied scores say nothing about order
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    folder: Path = tmp_path_factory.mktemp("one") / "checkpoint"
    save_checkpoint(model, folder, metadata={}, tokenizer_files={})
    return load_checkpoint(folder).model, GPT2LMHeadModel.from_pretrained(folder).eval(), data


def stored_alike(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Our class's tensor as the other class stores it."""
    return tensor.T if name.endswith(TRANSPOSED) else tensor


@pytest.mark.thorough
@pytest.mark.parametrize("method", UNLEARNERS.names())
def test_one_checkpoint_gives_one_edit(method: str, both: tuple[nn.Module, nn.Module, MitigationData]) -> None:
    ours, theirs, data = both
    unlearner = UNLEARNERS.get(method)
    config = config_of(unlearner, **{**QUICK, "epochs": 3, "per_step": 8, "block": 7})
    edited, other = (apply(unlearner, model, data, config) for model in (ours, theirs))
    changed = [name for name, p in ours.named_parameters() if not torch.equal(p, edited.get_parameter(name))]
    assert changed, "the method did nothing"
    for name, parameter in edited.named_parameters():
        torch.testing.assert_close(stored_alike(name, parameter), other.get_parameter(name), atol=1e-4, rtol=1e-4, msg=name)


def test_tied_scores_choose_the_same_weights(both: tuple[nn.Module, nn.Module, MitigationData]) -> None:
    chosen = []
    for model in both[:2]:
        scores = Scores("weight", {name: torch.zeros_like(p) for name, p in mlp_parameters(model).items()})
        chosen.append(select(model, scores, AblationConfig(ratio=0.3)).values)
    for name, mask in chosen[0].items():
        assert torch.equal(stored_alike(name, mask), chosen[1][name]), name


def test_draws_follow_seed_and_name_alone(both: tuple[nn.Module, nn.Module, MitigationData]) -> None:
    ours, theirs, _ = both
    names = list(mlp_parameters(ours))
    drawn, again = uniform(ours, names, 3), uniform(theirs, names[::-1], 3)
    for name in names:
        assert torch.equal(in_out(ours, drawn[name]), in_out(theirs, again[name])), name
        assert drawn[name].shape == ours.get_parameter(name).shape
    assert len({tuple(d.flatten()[:4].tolist()) for d in [*drawn.values(), *uniform(ours, names, 4).values()]}) == 2 * len(names)


@pytest.mark.parametrize("most", [_draws.MOST_KEPT, 0])
def test_draws_that_are_kept_are_not_those_that_were_given_away(
    both: tuple[nn.Module, nn.Module, MitigationData], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_draws, "MOST_KEPT", most)
    monkeypatch.setattr(_draws, "_last", {})
    names = list(mlp_parameters(both[0]))
    first = uniform(both[0], names, 3)
    whole = {name: drawn.clone() for name, drawn in first.items()}
    for drawn in first.values():
        drawn.zero_()
    again = uniform(both[0], names, 3)
    assert all(torch.equal(again[name], whole[name]) for name in names)
    assert bool(_draws._last) == (most > 0)


def test_threads_do_not_change_the_first_scores(both: tuple[nn.Module, nn.Module, MitigationData]) -> None:
    alone = initial_scores(both[0], 5)
    torch.set_num_threads(3)
    _draws._last.clear()
    assert all(torch.equal(scores, alone[name]) for name, scores in initial_scores(both[0], 5).items())


def test_a_learned_mask_starts_where_it_is_told(both: tuple[nn.Module, nn.Module, MitigationData]) -> None:
    from tinymem.mitigation.methods.weight.balanced_subnet import BalancedSubnetConfig, balanced_subnet

    model, _, data = both
    config = BalancedSubnetConfig(ratio=0.2, epochs=2, batch_size=4, learning_rate=1.0)
    generator = data.generator()
    order = [torch.randperm(16, generator=generator).split(4) for _ in range(2)]
    drawn = balanced_subnet(model, data, config)
    told = balanced_subnet(model, replace(data, seed=9), config, scores=initial_scores(model, data.seed), order=order)
    other = balanced_subnet(model, replace(data, seed=9), config)
    assert all(torch.equal(p, told.get_parameter(name)) for name, p in drawn.named_parameters())
    assert any(not torch.equal(p, other.get_parameter(name)) for name, p in drawn.named_parameters())
