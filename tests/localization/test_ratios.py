"""Ratios of a benchmark: the published defaults give way to narrow layers, given ones are refused before anything is run."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import tinymem

from tinymem.errors import UserError
from tinymem.localization.deletion import located
from tinymem.localization.injection import drawn_neurons
from tinymem.localization.ratios import ratios_of
from tinymem.localization.weights import drawn_weights
from tinymem.recipe.localization import parse_localization
from tinymem.testing import tiny_model


@pytest.mark.parametrize(
    ("values", "size", "ratios"),
    [
        ({"benchmark": "inj"}, 3072, (0.01, 0.001)),
        ({"benchmark": "inj"}, 1000, (0.01, 0.001)),
        ({"benchmark": "inj"}, 512, (0.01, 0.002)),
        ({"benchmark": "inj"}, 64, (0.016,)),
        ({"benchmark": "del"}, 512, (0.002, 0.005)),
        ({"benchmark": "inj", "unit": "weight"}, 512, (0.01, 0.002)),
        ({"benchmark": "inj", "ratios": [0.05, 0.002]}, 512, (0.05, 0.002)),
    ],
)
def test_default_ratios_give_way_where_they_are_less_than_one(values, size, ratios):
    assert ratios_of(parse_localization(values), size, ()) == ratios


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 300, 512, 999, 1000])
def test_what_a_default_becomes_is_enough_for_all(size):
    for ratio in ratios_of(parse_localization({"benchmark": "inj"}), size, ()):
        assert drawn_neurons((2, size), 3, ratio, 0).sum() == 3 * int(2 * size * ratio + 1e-6) >= 6
        assert located(torch.rand(1, 2, size), ratio).sum() >= 1 and drawn_weights([size, size], 1, ratio, 0).numel() >= 2


def test_a_ratio_that_was_chosen_is_refused():
    inj = parse_localization({"benchmark": "inj"})
    with pytest.raises(UserError, match=r"at least one neuron a layer, got 0.001 of 512; .* try --set .ratios=.0.002."):
        ratios_of(inj.model_copy(update={"ratios": (0.01, 0.001)}), 512, ())
    with pytest.raises(UserError, match=r"got 0.001 of 512"):
        ratios_of(inj, 512, {0.001})
    with pytest.raises(UserError, match=r"at least one weight a matrix, got 0.001 of 512"):
        ratios_of(inj.model_copy(update={"unit": "weight", "ratios": (0.001,)}), 512, ())


@pytest.mark.slow
def test_the_command_says_which_default_gave_way(tmp_path):
    """And a given ratio is refused before the one ahead of it is run."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    quick = ("--methods", "random-neurons", "--set", "steps=1", "--set", "sequences={count: 2, tokens: 6}")
    command = ("localize", "inj", tmp_path / "model", *quick, "--out", tmp_path / "out")
    refused = tinymem(*command, "--set", "ratios=[0.5, 0.001]")
    assert "got 0.001 of 64" in refused.one_line_error() and not (tmp_path / "out" / "localization").exists()
    done = tinymem(*command, "--json")
    assert "ratios 0.016: the default 0.01 and 0.001 of 64 is less than one neuron a layer" in done.err
    assert {row["ratio"] for row in json.loads(done.out)} == {0.016}
