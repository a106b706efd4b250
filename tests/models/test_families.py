"""Model families: every registered one says rightly where blocks and neurons are, and one of a user's own works like a built-in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tinymem.errors import UserError
from tinymem.models.adapters import captured_neurons, family_of, logits, mlp_parameters, neuron_layers
from tinymem.models.families import FAMILIES, family_of_class
from tinymem.registry import load_plugin
from tinymem.testing import CHECKS, VOCABULARY, check, tiny_case

BAG = """
from torch import nn
from tinymem.models.families import model_family

def block():
    return nn.ModuleDict({"feed": nn.ModuleDict({"up": nn.Linear(8, 32), "down": nn.Linear(32, 8)})})

class Bag(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary)
        self.stack = nn.ModuleList([block(), block()])

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.stack:
            x = x + block["feed"]["down"](block["feed"]["up"](x).relu())
        return self.head(x)

@model_family(NAME, model_class="Bag", blocks="stack", in_projections=("feed.up",), out_projection="feed.down")
def bag(vocabulary, length):
    return Bag(vocabulary)
"""


@pytest.fixture
def bag(tmp_path: Path) -> Iterator[Path]:
    """A plugin's file with the family `bag`."""
    path = tmp_path / "bag.py"
    path.write_text(BAG.replace("NAME", '"bag"'))
    with FAMILIES.temporary():
        load_plugin(path)
        yield path


@pytest.mark.parametrize("name", FAMILIES.names())
def test_where_neurons_are(name: str) -> None:
    """The out-projection's inputs are 64 numbers a token, and without their value vectors the feed-forward part adds its bias at most."""
    model, data = tiny_case(name)
    assert type(model).__name__ == FAMILIES.get(name).model_class
    with captured_neurons(model) as activations, torch.no_grad():
        assert logits(model, data.forget.ids).shape == (6, 12, VOCABULARY)
    layers = neuron_layers(model)
    assert [layer.neurons for layer in layers] == [64, 64] and [h.shape for h in activations] == [(6, 12, 64)] * 2
    assert {layer.weight_name for layer in layers} < set(mlp_parameters(model)) <= {n for n, _ in model.named_parameters()}
    outputs = []
    layers[1].module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        layers[1].values_FD().zero_()
        logits(model, data.forget.ids)
    assert torch.equal(outputs[0], outputs[0][:1, :1].expand_as(outputs[0]))


@pytest.mark.usefixtures("bag")
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("method", ["act", "durable", "gradient-ascent"])
def test_contract_on_a_family_of_ones_own(method: str, name: str) -> None:
    check(name, method, "bag")


def test_two_families_of_one_class_and_none(bag: Path) -> None:
    again = bag.with_name("again.py")
    again.write_text(BAG.replace("NAME", '"sack"'))
    model = tiny_case("bag")[0]
    assert family_of(model).blocks == "stack"
    load_plugin(again)
    with pytest.raises(UserError, match="expected one family of Bag, got bag, sack"):
        family_of(model)
    with pytest.raises(UserError, match=r"GPTNeoXForCausalLM, .*, got BertModel; what is missing is where its blocks and projections are"):
        family_of_class("BertModel")
    again.write_text(BAG.replace("NAME", '"bag"') + "\n# another file of that name\n")
    with pytest.raises(UserError, match="model family 'bag' is registered already"):
        load_plugin(again)


@pytest.mark.usefixtures("bag")
@pytest.mark.parametrize("mixed", ["up", "down"])
def test_matrices_that_lie_otherwise_than_the_family_says_are_refused(mixed: str) -> None:
    """A class that mixes torch's and transformers' linear layers has no one entry of the table; its value vectors would be taken askew."""
    from transformers.pytorch_utils import Conv1D

    model = tiny_case("bag")[0]
    feed = model.get_submodule("stack.1.feed")
    setattr(feed, mixed, Conv1D(32, 8) if mixed == "up" else Conv1D(8, 32))
    for use in (neuron_layers, mlp_parameters) if mixed == "down" else (mlp_parameters,):
        with pytest.raises(
            UserError, match=rf"as \[out, in\], which its family 'bag' says, got feed.{mixed} \(Conv1D\) as \[in, out\]; set"
        ):
            use(model)
