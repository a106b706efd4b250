"""Checkpoints that cannot be loaded: one line that says why and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from helpers import random_gpt
from safetensors.torch import load_file, save_file

from tinymem.data.tokenizers import tokenizer_files
from tinymem.errors import UserError
from tinymem.models.checkpoint import bytes_of, load_checkpoint, save_checkpoint
from tinymem.testing import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(random_gpt(), tmp_path / "model", metadata={}, tokenizer_files=tokenizer_files(24))
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path: Path, keep: Callable[[int], int]) -> None:
    path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


@pytest.mark.parametrize("keep", [lambda n: n - 1, lambda n: n // 2, lambda n: 40, lambda n: 4, lambda n: 0])
def test_truncated_weights(folder: Path, keep: Callable[[int], int]) -> None:
    truncate(folder / "model.safetensors", keep)
    assert "whole safetensors file" in refusal(folder)


def test_other_bytes_as_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle" * 100)
    assert "damaged" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert str(folder / name) in refusal(folder)


def test_missing_folder(tmp_path: Path) -> None:
    assert "found none" in refusal(tmp_path / "nowhere")


def test_damaged_config(folder: Path) -> None:
    truncate(folder / "config.json", lambda n: n // 2)
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tinymem.json"])
def test_json_of_another_kind(folder: Path, name: str) -> None:
    (folder / name).write_text("[1, 2]")
    assert f"expected a JSON object in {folder / name}, got list" in refusal(folder)


@pytest.mark.parametrize("size", [0, -2, 2.5, "two", None, [2]])
@pytest.mark.parametrize("key", ["n_layer", "n_embd", "vocab_size"])
def test_sizes_that_are_none(folder: Path, key: str, size: Any) -> None:
    rewrite(folder / "config.json", **{key: size})
    assert f"expected model.{key} to be a whole number of at least 1, got {size!r}" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_embd": 32},
        {"n_layer": 3},
        {"n_layer": 1},  # the file then holds a layer more
        {"vocab_size": 15},
        {"n_positions": 30},
        {"n_inner": 30},
    ],
)
def test_config_of_another_shape(folder: Path, changes: dict[str, int]) -> None:
    rewrite(folder / "config.json", **changes)
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "unfilled"),
    [({"add_cross_attention": True}, "crossattention"), ({"tie_word_embeddings": False}, "lm_head.weight")],
)
def test_gpt2_options_that_need_tensors_which_are_not_there(folder: Path, changes: dict[str, Any], unfilled: str) -> None:
    rewrite(folder / "config.json", **changes)
    message = refusal(folder)
    assert "got none for" in message and unfilled in message


def test_another_architecture(tmp_path: Path) -> None:
    config = hf.BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    hf.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    message = refusal(tmp_path / "bert")
    assert "BertForMaskedLM" in message and "GPTNeoXForCausalLM" in message


def test_a_gpt2_with_another_head(tmp_path: Path) -> None:
    config = hf.GPT2Config(vocab_size=14, n_positions=24, n_embd=16, n_layer=1, n_head=2, num_labels=2)
    hf.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    assert "GPT2ForSequenceClassification" in refusal(tmp_path / "classifier")


def foreign(folder: Path) -> Path:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(vocab_size=14, **sizes)).save_pretrained(folder)
    return folder


def test_truncated_weights_of_another_family(tmp_path: Path) -> None:
    truncate(foreign(tmp_path / "neox") / "model.safetensors", lambda n: n // 2)
    assert "neox" in refusal(tmp_path / "neox")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "neox")
    torch.save(load_checkpoint(folder).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert "pickled ones (pytorch_model.bin)" in message and "save_pretrained" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors")
    assert "NaN or infinity in 1 tensors, 'transformer.h.1.mlp.c_fc.weight' first" in refusal(folder)


def rename(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


FAMILIES = ["gpt2", "gpt-neo", "gpt-neox", "llama"]
# How weights may not fill a model, and what the message says of it.
UNFILLED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str]] = {
    "a tensor is missing": (lambda t: dict(list(t.items())[1:]), "got none for"),
    "a tensor too many": (lambda t: {**t, "extra.weight": torch.ones(2)}, "got also 'extra.weight'"),
    "compiled": (lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}, "torch.compile"),
    "a compiled block": (lambda t: {k.replace(".0.", ".0._orig_mod.", 1): v for k, v in t.items()}, "torch.compile"),
    "data-parallel": (lambda t: {f"module.{k}": v for k, v in t.items()}, "data-parallel"),
    "adapter": (lambda t: {f"base_model.model.{k}": v for k, v in t.items()}, "merge it into its base model"),
    "another wrapper": (lambda t: {f"student.{k}": v for k, v in t.items()}, "'student.'"),
    "a layer less": (lambda t: {k: v for k, v in t.items() if ".1." not in k}, "the weights have 1 layers and config.json says 2"),
    "a layer more": (
        lambda t: {**t, **{k.replace(".1.", ".2.", 1): v.clone() for k, v in t.items() if ".1." in k}},
        "the weights have 3 layers and config.json says 2",
    ),
    "another shape": (lambda t: {k: v[:-1].contiguous() if v.dim() == 2 else v for k, v in t.items()}, "of shape"),
    "quantized": (lambda t: {k: v.to(torch.int8) for k, v in t.items()}, "floating-point weights"),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fault", UNFILLED)
def test_weights_that_do_not_fill_the_model(tmp_path: Path, family: str, fault: str) -> None:
    tiny_model(family).save_pretrained(tmp_path / "model")
    change, words = UNFILLED[fault]
    rename(tmp_path / "model", change)
    message = refusal(tmp_path / "model")
    assert words in message and str(tmp_path / "model") in message


def test_an_adapter_folder(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "merge_and_unload" in refusal(tmp_path)


@pytest.mark.parametrize("key", ["quantization_config", "transformers_weights"])
def test_keys_that_stand_for_other_weights(folder: Path, key: str) -> None:
    rewrite(folder / "config.json", **{key: "adapter_model.bin"})
    assert key in refusal(folder)


@pytest.mark.parametrize("lost", ["a file", "the map", "outside"])
def test_half_a_download(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "model"
    tiny_model("gpt2").save_pretrained(folder, max_shard_size="10KB")
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    if lost == "a file":
        (folder / next(iter(names.values()))).unlink()
    else:
        rewrite(index, weight_map=[] if lost == "the map" else {name: f"../{file}" for name, file in names.items()})
    assert ("missing" if lost == "a file" else "weight_map") in refusal(folder)


def test_neither_model_type_nor_architectures(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    (folder / "config.json").write_text(json.dumps(kept))
    assert "model_type" in refusal(folder)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neo", "llama"])
@pytest.mark.parametrize("name", ["num_hidden_layers", "max_position_embeddings", "vocab_size"])
def test_giant_sizes_are_refused_before_anything_is_allocated(tmp_path: Path, family: str, name: str) -> None:
    """A billion layers or positions would fill any memory; that this returns at all says that none was taken."""
    tiny_model(family).save_pretrained(tmp_path / "model")
    own = {
        "gpt2": {"num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"},
        "gpt-neo": {"num_hidden_layers": "num_layers"},
    }
    rewrite(tmp_path / "model" / "config.json", **{own.get(family, {}).get(name, name): 10**9})
    if (family, name) == ("llama", "max_position_embeddings"):  # rotary: no tensor has that size
        load_checkpoint(tmp_path / "model")
    else:
        refusal(tmp_path / "model")


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_model_that_does_not_fit_the_memory(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    model = tiny_model(family)
    save_checkpoint(model, folder, metadata={}, tokenizer_files={})
    needed = sum(p.numel() for p in model.parameters()) * 4
    monkeypatch.setattr("tinymem.runtime.memory.free_memory", lambda device: int(needed * 1.5))
    load_checkpoint(folder)
    with pytest.raises(UserError, match="and what is done with it in the memory"):
        load_checkpoint(folder, needed=lambda model: 2 * bytes_of(model))


@pytest.mark.parametrize("epsilon", ["x", None, -1, True, float("inf")])
def test_an_epsilon_that_is_none(folder: Path, epsilon: object) -> None:
    rewrite(folder / "config.json", layer_norm_epsilon=epsilon)
    assert "expected layer_norm_epsilon from 0 to below 1" in refusal(folder)


def test_sizes_whose_product_is_no_number(folder: Path) -> None:
    rewrite(folder / "config.json", n_embd=10**12)
    assert "impossible ones" in refusal(folder)


def test_a_model_type_that_nobody_knows(folder: Path) -> None:
    rewrite(folder / "config.json", model_type="gpt3")
    assert "gpt3" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_nested_beyond_reading(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("[" * 100_000)
    assert "expected JSON" in refusal(folder)
