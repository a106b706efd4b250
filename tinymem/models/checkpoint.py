"""Checkpoints: a folder that plain `transformers` loads, plus `tinymem.json` with the model's origin.

`config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json`, `tinymem.json`. No pickle is written or read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tinymem.data.math.sequences import BOS, EOS, PAD
from tinymem.errors import UserError
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.runtime.files import file_sha256, new_directory, read_object, write_bytes, write_json, write_text

WEIGHTS, CONFIG, METADATA = "model.safetensors", "config.json", "tinymem.json"
# transformers' GPT-2 keeps these as Conv1D, [in, out].
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Options of GPT2Config that change the computation, with the only value that our GPT knows.
FIXED = {
    "add_cross_attention": False,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
}
# Tensors that older versions of transformers store in addition to the weights: the causal mask and the tied head.
REDUNDANT = (".attn.bias", ".attn.masked_bias", "lm_head.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with the metadata of its `tinymem.json` (empty for a folder that TinyMem did not write)."""

    model: nn.Module
    metadata: dict[str, Any] = field(default_factory=dict)


def math_config(**sizes: Any) -> GPTConfig:
    """GPTConfig of a math model: 14 tokens with their special ids."""
    return GPTConfig(vocab_size=14, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, **sizes)


def save_checkpoint(model: nn.Module, directory: Path, *, metadata: dict[str, Any], tokenizer_files: dict[str, str]) -> None:
    """Write a checkpoint folder that transformers can load; it appears whole or not at all, in place of an older one.

    Args:
        model: our GPT, or a model of transformers.
        directory: the folder.
        metadata: written to `tinymem.json`; any value that JSON can hold.
        tokenizer_files: text by file name.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with new_directory(directory) as temporary:
        if isinstance(model, GPT):
            write_json(temporary / CONFIG, _hf_config(model.config))
            tensors = {name: _flip(name, t.detach().cpu()).contiguous() for name, t in model.state_dict().items()}
            write_bytes(temporary / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        else:
            try:
                model.save_pretrained(temporary)  # type: ignore[operator]
            except SafetensorError as error:  # its way to report a full disk
                raise OSError(str(error)) from error
        for name, text in tokenizer_files.items():
            write_text(temporary / name, text)
        write_json(temporary / METADATA, metadata)


def load_checkpoint(directory: Path, *, device: str = "cpu") -> Checkpoint:
    """Load a checkpoint folder: ours, a GPT-2 that transformers wrote, or (through transformers) another known family.

    Raises:
        UserError: missing, truncated or damaged files, weights that are no numbers, or an architecture or option that is not supported.
    """
    if not directory.is_dir():
        raise UserError(f"expected a checkpoint folder at {directory}, found none; a run keeps its model in runs/<run>/checkpoint")
    if not (directory / CONFIG).is_file() and (directory / "checkpoint" / CONFIG).is_file():
        raise UserError(f"expected a checkpoint folder, got the run {directory}; try {directory / 'checkpoint'}")
    config = read_object(directory / CONFIG, "model configuration")
    metadata = read_object(directory / METADATA) if (directory / METADATA).is_file() else {}
    model = _load_gpt(directory, config) if config.get("model_type") == "gpt2" else _load_foreign(directory, config)
    model = model.to(device).eval()
    _check_finite(model, directory)
    return Checkpoint(model, metadata)


def weights_id(checkpoint: Path) -> str:
    """Identity of a trained model: the first 16 hexadecimal digits of the hash of a checkpoint's weights."""
    return file_sha256(checkpoint / WEIGHTS)[:16]


def not_finite(model: nn.Module) -> list[str]:
    """Names of the parameters that hold NaN or infinity."""
    return [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]


def _check_finite(model: nn.Module, directory: Path) -> None:
    """All measurements of a model with a NaN in it would be NaN, or that it memorized nothing."""
    if broken := not_finite(model):
        raise UserError(
            f"expected finite weights in {directory}, got NaN or infinity in {len(broken)} tensors, '{broken[0]}' first; "
            "the training or the edit that wrote it diverged: make it again with a lower learning rate"
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by name.

    Raises:
        UserError: the file is missing, truncated or not a safetensors file.
    """
    if not path.is_file():
        raise UserError(f"expected weights at {path}, found none; copy the checkpoint again")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"expected a whole safetensors file at {path}, got a damaged one ({error}); copy the checkpoint again") from None


def read_tokenizer_files(directory: Path) -> dict[str, str]:
    """The tokenizer's files in a checkpoint folder, as text by name, to be saved with an edited model."""
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    return {name: (directory / name).read_text(encoding="utf-8") for name in names if (directory / name).is_file()}


def _flip(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if name.endswith(TRANSPOSED) else tensor


def _hf_config(config: GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{f.name: getattr(config, f.name) for f in fields(config)},
        "initializer_range": config.init_std,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
    }


def _load_gpt(directory: Path, config: dict[str, Any]) -> GPT:
    names = config.get("architectures") or ["GPT2LMHeadModel"]
    if names[0] not in ("GPT2LMHeadModel", "GPT2Model"):
        raise UserError(f"expected a GPT2LMHeadModel, got {names[0]} in {directory}; this architecture is not supported")
    for option, value in FIXED.items():
        if config.get(option, value) != value:
            raise UserError(
                f"expected '{option}' to be {value} in {directory / CONFIG}, got {config[option]}; this option is not supported"
            )
    known = {f.name for f in fields(GPTConfig)}
    model = GPT(GPTConfig(**{key: value for key, value in config.items() if key in known}))
    tensors = {n if n.startswith("transformer.") else f"transformer.{n}": t for n, t in read_tensors(directory / WEIGHTS).items()}
    expected = model.state_dict()
    missing = [n for n in expected if n not in tensors]
    if missing:
        raise UserError(
            f"expected a GPT-2 of {model.config.n_layer} layers in {directory}, found no tensor '{missing[0]}'; wrong config.json?"
        )
    foreign = [n for n in tensors if n not in expected and not n.endswith(REDUNDANT)]
    if foreign:
        raise UserError(
            f"expected a GPT-2 of {model.config.n_layer} layers in {directory}, found also a tensor '{foreign[0]}'; wrong config.json?"
        )
    loaded = {n: _flip(n, tensors[n]) for n in expected}
    for name, tensor in loaded.items():
        if tensor.shape != expected[name].shape:
            raise UserError(f"expected '{name}' of shape {list(expected[name].shape)}, got {list(tensor.shape)}; wrong config.json?")
    model.load_state_dict({n: t.to(torch.float32) for n, t in loaded.items()})
    return model


def _load_foreign(directory: Path, config: dict[str, Any]) -> nn.Module:
    from tinymem.models.adapters import family_of
    from tinymem.models.families import family_of_class

    names = config.get("architectures") or [config.get("model_type")]
    try:
        family_of_class(str(names[0]))
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise UserError(f"{names[0]} is loaded through transformers, which is not installed; try: pip install 'tinymem[hf]'") from None
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"transformers could not load {directory}: {' '.join(str(error).split())[:200]}") from None
    family_of(model)
    return model
