"""A model spread over devices: where its parts go, and that the edits of methods are those of one device."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from by_heart import KNOWN, MATCH, PROMPT, by_heart
from helpers import tinymem

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS, apply
from tinymem.mitigation.methods import losses
from tinymem.models import foreign
from tinymem.models.adapters import logits
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint
from tinymem.models.precise_head import precise_head
from tinymem.models.spread import bytes_by_device, device_map, spread
from tinymem.runtime import memory
from tinymem.testing import QUICK, config_of, tiny_case, tiny_model

CURVATURE = ("kfac", "lowest-kept", "random-basis", "svd")
METHODS = [name for name in UNLEARNERS.names() if name not in ("ig", "zero", *CURVATURE)]
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


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_a_loaded_model_has_memory_where_its_blocks_go(family: str) -> None:
    model = tiny_model(family).to("meta")
    model.tie_weights()
    tied = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    foreign._allocate(model, ["cpu", "meta"])
    places = device_map(model, ["cpu", "meta"])
    for name, parameter in model.named_parameters():
        assert parameter.device.type == next(device for module, device in places.items() if name.startswith(module + ".")), name
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu", "meta"}
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)] == tied
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == (family == "gpt2"), "a tied head stays tied"


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_bytes_of_each_device(family: str) -> None:
    model = tiny_model(family).bfloat16()
    foreign._allocate(model, ["cpu", "meta"])
    found = bytes_by_device(model, ["cpu", "meta"])
    assert found == {kind: sum(2 * p.numel() for p in model.parameters() if p.device.type == kind) for kind in ("cpu", "meta")}
    assert sum(found.values()) == 2 * sum(p.numel() for p in model.parameters()) and min(found.values()) > 0


def test_a_gpu_without_room_for_its_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another one's room would hold the whole model."""
    tiny_model("llama").save_pretrained(tmp_path)
    monkeypatch.setattr("tinymem.models.spread.find_spec", lambda name: True)
    free = {"cuda:0": 10**9, "cuda:1": 10}
    monkeypatch.setattr(memory, "free_memory", lambda device: free[device])
    with pytest.raises(
        UserError, match=f"expected room for its share of the model in {tmp_path} in the memory of cuda:1, got .* free where"
    ):
        load_checkpoint(tmp_path, device="cuda", gpus=2)


def test_what_is_not_loaded_over_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinymem.models.spread.find_spec", lambda name: None)
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    with pytest.raises(UserError, match=r"accelerate, which is not installed; try: pip install 'tinymem\[spread\]'"):
        load_checkpoint(tmp_path / "llama", device="cuda", gpus=2)
    save_checkpoint(tiny_model("gpt"), tmp_path / "ours", metadata={}, tokenizer_files={})
    with pytest.raises(UserError, match="expected a model of another family than GPT-2 with --gpus 2"):
        load_checkpoint(tmp_path / "ours", device="cuda", gpus=2)


@pytest.mark.parametrize("name", ["ig", "zero", *CURVATURE])
def test_methods_that_take_one_device(name: str) -> None:
    model, data = tiny_case("gpt-neox")
    foreign._allocate(model, ["cpu", "meta"])
    method = UNLEARNERS.get(name)
    with pytest.raises(
        UserError, match=f"expected a model on one device for {'edits by curvature' if name in CURVATURE else name}, got one spread over 2"
    ):
        method.function(model, data, config_of(method))


@pytest.mark.skipif(GPUS > 1, reason="there are two GPUs")
@pytest.mark.parametrize("verb", ["evaluate", "mitigate", "data find-memorized"])
def test_the_commands_say_how_many_gpus_there_are(tmp_path: Path, verb: str) -> None:
    heart = by_heart(tmp_path / "model")
    known, retain = heart.jsonl("forget", heart.known), heart.jsonl("retain", heart.retain)
    words: tuple[object, ...] = ("--forget", known, "--retain", retain) if " " not in verb else (known, "--out", tmp_path / "found.jsonl")
    done = tinymem(*verb.split(), heart.folder, *words, "--gpus", 2, *(("--method", "act") if verb == "mitigate" else ()))
    assert "expected 2 GPUs here to spread a model over, found" in done.one_line_error()


@pytest.mark.processes
@pytest.mark.skipif(GPUS < 2 or find_spec("accelerate") is None, reason="needs two GPUs and accelerate")
def test_the_commands_give_the_numbers_of_one_gpu(tmp_path: Path) -> None:
    heart = by_heart(tmp_path / "model")
    rows = ("--forget", heart.jsonl("forget", heart.known), "--retain", heart.jsonl("retain", heart.retain))
    words = (*rows, "--prompt", PROMPT, "--match", MATCH, "--format", "json")
    edits = [
        json.loads(tinymem("mitigate", heart.folder, *words, "--method", "act", "--gpus", n, "--out", tmp_path / str(n)).out)
        for n in (1, 2)
    ]
    one, two = (edit[0] if isinstance(edit, list) else edit for edit in edits)
    assert two["device"] == f"2 x {one['device']}" and two["id"] == one["id"] and one["memorized_count_before"] == KNOWN
    for key in ("memorized_count_before", "memorized_count_after", "edited_parameters"):
        assert one[key] == two[key]
    assert two["perplexity_after"] == pytest.approx(one["perplexity_after"], rel=1e-4)
    found = json.loads(tinymem("evaluate", tmp_path / "2", *words, "--gpus", 2).out)
    assert found["memorized"]["rows"]["count"] == two["memorized_count_after"]


@pytest.mark.processes
@pytest.mark.skipif(GPUS < 2 or find_spec("accelerate") is None, reason="needs two GPUs and accelerate")
@pytest.mark.parametrize("family", ["gpt-neox", "gpt2"])
def test_greedy_choices_with_a_head_in_float32(family: str) -> None:
    model, data = tiny_case(family)
    found = []
    for placed in (deepcopy(model).bfloat16().to("cuda:0"), spread(deepcopy(model).bfloat16(), ["cuda:0", "cuda:1"])):
        with precise_head(placed) as head:
            found.append(head.choices(data.forget.ids.to("cuda:0"), 5))
    assert torch.equal(*found) and found[1].device.index == 0 and len(found[0].unique()) > 1


@pytest.mark.processes  # accelerate asks nvidia-smi
@pytest.mark.skipif(GPUS < 2 or find_spec("accelerate") is None, reason="needs two GPUs and accelerate")
@pytest.mark.parametrize("name", METHODS)
def test_the_edit_is_that_of_one_device(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_case("gpt-neox")
    kinds = ("forget", "retain", "clean_counterparts", "twins")
    data = replace(data, **{kind: getattr(data, kind).to("cuda:0") for kind in kinds})
    method = UNLEARNERS.get(name)
    config, edits = config_of(method, **QUICK), []
    for count, placed in enumerate((deepcopy(model).to("cuda:0"), spread(deepcopy(model), ["cuda:0", "cuda:1"]))):
        monkeypatch.setenv("TINYMEM_CACHE", str(tmp_path / str(count)))  # each measures curvature itself
        edits.append(apply(method, placed, data, config))
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
