"""A model spread over devices: where its parts go, and that the edits of methods are those of one device."""

from __future__ import annotations

from copy import deepcopy
from importlib.util import find_spec

import pytest
import torch

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods import losses
from tinymem.models.adapters import logits
from tinymem.models.spread import device_map, spread
from tinymem.testing import QUICK, config_of, tiny_case, tiny_model

METHODS = ("act", "nemo", "slim", "hard-concrete", "durable", "durable-agg", "greedy", "subnet", "balanced-subnet", "npo", "rmu")
GPUS = torch.cuda.device_count()


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_every_parameter_has_one_device(family: str) -> None:
    model = tiny_model(family)
    places = device_map(model, ["first", "second"])
    for name, _ in model.named_parameters():
        (device,) = {place for module, place in places.items() if name.startswith(module + ".")}
        behind = ".1." in name or any(word in name for word in ("final_layer_norm", "model.norm", "ln_f", "lm_head"))
        assert device == ("second" if behind else "first"), name
    assert places["lm_head"] == ("first" if family == "gpt2" else "second"), "a tied head goes where the embedding is"


def test_what_cannot_be_spread() -> None:
    with pytest.raises(UserError, match="at least a block for each of 3 devices, got 2"):
        device_map(tiny_model("gpt-neox"), ["a", "b", "c"])
    with pytest.raises(UserError, match="our GPT"):
        spread(tiny_model("gpt"), ["cpu", "cpu"])


@pytest.mark.processes  # accelerate asks nvidia-smi
@pytest.mark.skipif(GPUS < 2 or find_spec("accelerate") is None, reason="needs two GPUs and accelerate")
@pytest.mark.parametrize("name", METHODS)
def test_the_edit_is_that_of_one_device(name: str) -> None:
    model, data = tiny_case("gpt-neox")
    data = type(data)(data.forget.to("cuda:0"), data.retain.to("cuda:0"), seed=data.seed)
    method = UNLEARNERS.get(name)
    config = config_of(method, **QUICK)
    edits = [
        apply(method, placed, data, config) for placed in (deepcopy(model).to("cuda:0"), spread(deepcopy(model), ["cuda:0", "cuda:1"]))
    ]
    assert {p.device.index for p in edits[1].parameters()} == {0, 1}
    for (key, one), two in zip(edits[0].named_parameters(), edits[1].parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), two.cpu(), atol=1e-4, rtol=1e-4, msg=key)
    assert any(not torch.equal(p, q.cpu()) for p, q in zip(model.parameters(), edits[1].parameters(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(*(logits(edit, data.forget.ids) for edit in edits), atol=1e-3, rtol=1e-3)


@pytest.mark.processes
@pytest.mark.skipif(GPUS < 2 or find_spec("accelerate") is None, reason="needs two GPUs and accelerate")
def test_flat_losses_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "FEW", 0)
    monkeypatch.setattr(losses, "LOGITS", 3 * 64)  # a few tokens at once
    model, data = tiny_case("gpt-neox")
    rows, found = data.forget.to("cuda:0"), []
    for placed in (deepcopy(model).bfloat16().to("cuda:0"), spread(deepcopy(model).bfloat16(), ["cuda:0", "cuda:1"])):
        found.append(losses.row_losses(placed, rows).float().cpu())
        losses.row_losses(placed, rows).mean().backward()
        found += [parameter.grad.float().cpu() for parameter in placed.parameters()]
    half = len(found) // 2
    for one, two in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=0.02)
    assert half == 1 + len(list(model.parameters())) and all(gradient.any() for gradient in found[1:half])
