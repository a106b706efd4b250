"""Passes that start at a block, and rows that hold each token twice, against whole passes on every family."""

import pytest
import torch

from tinymem.data.rows import Rows
from tinymem.mitigation.methods.losses import row_losses
from tinymem.mitigation.methods.neuron import _below, _doubled, _patched, ig
from tinymem.mitigation.methods.neuron._common import frozen
from tinymem.models.adapters import logits, neuron_layers, seen_neurons
from tinymem.models.families import FAMILIES

OTHERS = [name for name in FAMILIES.names() if name != "gpt"]
NARROW = ("gpt-neo",)
"""Families with a mask of their own that is as wide as the model's positions, which rows of twice the tokens exceed here."""


def rows_of(vocabulary=19, tokens=12):
    ids = torch.randint(vocabulary, (3, tokens), generator=torch.Generator().manual_seed(4))
    return Rows.of(ids, torch.tensor([5, 3, 1]), torch.tensor([tokens - 1, tokens, tokens - 3]))


def made(name, **changes):
    """A tiny model of a family with weights large enough for its activations to matter, whose configuration may be changed."""
    torch.manual_seed(2)
    model = FAMILIES.get(name).tiny(19, 12)
    if changes:
        for key, value in changes.items():
            setattr(model.config, key, value)
        model = type(model)(model.config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("name", OTHERS)
@torch.no_grad()
def test_a_pass_that_starts_at_a_block_is_the_whole_one(name):
    model, rows, row_n = made(name), rows_of(), torch.tensor([2, 0, 0, 1])
    with _below.clean_pass(model) as clean:
        logits(model, rows.ids)
    for layer in neuron_layers(model):
        seen = set()
        handle = layer.module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * (torch.arange(64) != 7),))
        whole, losses = logits(model, rows.ids)[row_n], row_losses(model, rows, "suffix")[row_n]
        with clean.starting_at(layer.index, row_n), seen_neurons(model, lambda index, _, seen=seen: seen.add(index)):
            torch.testing.assert_close(logits(model, rows.ids[row_n]), whole, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(_below.suffix_losses(model, rows.take(row_n)), losses, atol=1e-6, rtol=1e-5)
        handle.remove()
        assert sorted(seen) == list(range(layer.index, len(clean.blocks))), "blocks below compute nothing"
        assert not torch.equal(whole, logits(model, rows.ids)[row_n]), "the neuron is not the one that a pass depends on"
    assert not any("forward" in block.__dict__ for block in clean.blocks)


def test_blocks_compute_again_after_an_error():
    model, rows = made("llama"), rows_of()
    with _below.clean_pass(model) as clean:
        expected = logits(model, rows.ids)
    clean.blocks[0].forward = theirs = clean.blocks[0].forward  # as accelerate does
    with pytest.raises(ZeroDivisionError), clean.starting_at(2, torch.tensor([0])):
        raise ZeroDivisionError
    assert clean.blocks[0].__dict__["forward"] is theirs
    assert torch.equal(logits(model, rows.ids), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_rows_of_twice_the_tokens_have_the_gradients_of_a_patch_at_each_position(name):
    model, rows = made(name), rows_of()
    twice, alone = _doubled.doubled(model, rows), _patched.patched(model, rows)
    assert (twice is None) == (name in NARROW)
    if twice is None:
        return
    alpha_m = ig.alphas(ig.IGConfig(steps=3, rule="ends"), torch.device("cpu"))
    with frozen(model):
        for layer in neuron_layers(model):
            torch.testing.assert_close(twice.neurons[layer.index], alone.neurons[layer.index], atol=1e-6, rtol=1e-5)
            found = twice.mean_gradients(layer, alpha_m, copies=5)
            expected = alone.mean_gradients(layer, alpha_m, copies=7)
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in NARROW])
def test_rows_of_twice_the_tokens_are_taken_in_bf16(name):
    assert _doubled.doubled(made(name).bfloat16(), rows_of()) is not None


def test_local_attention_is_found_out_and_takes_a_copy_for_each_position():
    model, rows = made("mistral", sliding_window=4), rows_of()
    assert _doubled.doubled(model, rows) is None
    short = Rows.of(rows.ids[:, :4], 1)
    assert _doubled.doubled(model, short) is not None, "rows of a window's tokens see all of it"
