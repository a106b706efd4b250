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
from tinymem.models.checkpoint import load_checkpoint, save_checkpoint


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
    "changes",
    [
        {"add_cross_attention": True},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"scale_attn_weights": False},
        {"tie_word_embeddings": False},
        {"activation_function": "silu"},
    ],
)
def test_gpt2_options_that_would_change_the_logits(folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder / "config.json", **changes)
    assert next(iter(changes)) in refusal(folder)


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
    assert "neox" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors")
    assert "NaN or infinity in 1 tensors, 'transformer.h.1.mlp.c_fc.weight' first" in refusal(folder)
