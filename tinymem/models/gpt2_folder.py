"""GPT-2 as folders hold it: transformers' configuration and its defaults, and the tensors under their published names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from tinymem.errors import UserError, one_line
from tinymem.models.gpt2 import ACTIVATIONS, GPT, GPTConfig
from tinymem.models.layout import Expected, Layout
from tinymem.models.weights import CONFIG, Folder
from tinymem.recipe.sizes import GPT2_VOCABULARY
from tinymem.runtime.json import JsonObject

# transformers' GPT-2 keeps these as Conv1D, [in, out].
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
HEAD, EMBEDDING = "lm_head.weight", "transformer.wte.weight"
CLASSES = ("GPT2LMHeadModel", "GPT2Model")
# Options of transformers' GPT2Config that change the computation, with the only value that our GPT knows.
FIXED = {
    "add_cross_attention": False,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
}
# What transformers takes for a key that config.json lacks (GPT2Config): the smallest published GPT-2.
DEFAULTS: JsonObject = {
    "vocab_size": GPT2_VOCABULARY,
    "n_positions": 1_024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "activation_function": "gelu_new",
    "initializer_range": 0.02,
    "bos_token_id": 50_256,
    "eos_token_id": 50_256,
}
# Names that transformers reads too, and prefers where both are there (GPT2Config.attribute_map).
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def is_gpt2(folder: Folder) -> bool:
    """Whether a folder's configuration is GPT-2's: by `model_type`, else by the class in `architectures`."""
    if "model_type" in folder.config:
        return folder.config["model_type"] == "gpt2"
    return folder.named_class in CLASSES


def read_gpt2_config(config: JsonObject) -> GPTConfig | None:
    """The sizes of a GPT-2 that our class can hold, read as transformers reads them; None for options that it does not know.

    Raises:
        UserError: sizes that are none.
    """
    values = {**DEFAULTS, **config, **{name: config[alias] for alias, name in ALIASES.items() if alias in config}}
    activation = values["activation_function"]
    if any(values.get(option, only) != only for option, only in FIXED.items()) or activation not in ACTIVATIONS:
        return None
    sizes: Any = {f.name: values[f.name] for f in fields(GPTConfig) if f.name in values}
    return GPTConfig(**sizes)


def load_gpt(
    folder: Folder, config: GPTConfig, device: str, dtype: torch.dtype, check: Callable[[nn.Module], None]
) -> tuple[GPT, Layout] | None:
    """A GPT-2 as our class, straight to the device in one type; None where the stored head differs from the embedding.

    `check` sees the model before it has memory, and raises where there is not enough.
    """
    folder.check_layers(config.n_layer)
    try:
        with torch.device("meta"):
            model = GPT(config).to(dtype)
    except RuntimeError as error:  # more numbers than can be counted
        raise UserError(f"expected sizes of a model in {folder.path / CONFIG}, got impossible ones: {one_line(str(error))[:100]}") from None
    layout = Expected(f"a GPT-2 (GPT2LMHeadModel) of {config.n_layer} layers", published_tensors(model), "transformer").layout(folder)
    if not layout.agrees():
        return None
    check(model)
    model.to_empty(device=device)
    layout.fill(published_tensors(model))
    return model, layout


def hf_config(config: GPTConfig) -> JsonObject:
    """The `config.json` of one of our models."""
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


def published_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors under the names and in the shapes that files have; writing to one edits the model.

    Tied tensors are one object under several names.
    """
    found: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if not isinstance(model, GPT):
        return found
    flipped = {name: tensor.T if name.endswith(TRANSPOSED) else tensor for name, tensor in found.items()}
    return {**flipped, HEAD: flipped[EMBEDDING]}
