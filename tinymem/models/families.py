"""Model families: where blocks, feed-forward layers and neurons are in each class of models, one entry a family.

    @model_family("my-family", model_class="MyModelForCausalLM", blocks="model.layers", mlp="mlp", out_projection="mlp.down_proj")
    def my_family(vocabulary, length):
        \"\"\"A tiny random model of the family, for tests.\"\"\"
        return MyModelForCausalLM(MyConfig(vocab_size=vocabulary, max_position_embeddings=length, ...))

A neuron is one coordinate of a feed-forward block's hidden vector after the non-linearity, that is one input of the block's
out-projection; its value vector holds the weights it multiplies there (Chang et al., section 2). Hooking the *input of the
out-projection* is one rule that also covers gated blocks (Llama).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from tinymem.errors import UserError
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.registry import Registry

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TinyModel = Callable[[int, int], nn.Module]
"""(size of the vocabulary, positions) -> a random model of two blocks."""


@dataclass(frozen=True)
class Family:
    """A registered family: attribute paths of a model class.

    Attributes:
        name: short name.
        model_class: name of the class, as `architectures` of a checkpoint's config.json has it.
        blocks: path to the list of blocks.
        mlp: path from a block to its feed-forward part.
        out_projection: path from a block to the linear layer that its neurons are the inputs of.
        transposed: whether the feed-forward matrices are stored [in, out] (transformers' Conv1D) instead of [out, in]; that layer's is
            then [neurons, embedding].
        tiny: makes a tiny random model, for tests.
    """

    name: str
    model_class: str
    blocks: str
    mlp: str
    out_projection: str
    transposed: bool
    tiny: TinyModel

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return f"{inspect.getsourcefile(self.tiny)}:{self.tiny.__qualname__}"


FAMILIES: Registry[Family] = Registry("model family", entry_points="tinymem.families")


def model_family(
    name: str, *, model_class: str, blocks: str, mlp: str, out_projection: str, transposed: bool = False
) -> Callable[[TinyModel], TinyModel]:
    """Register a family with a function `(vocabulary, length) -> tiny random model` for tests; the paths are those of `Family`.

    Raises:
        UserError: another family has the name.
    """

    def register(tiny: TinyModel) -> TinyModel:
        FAMILIES.register(name, Family(name, model_class, blocks, mlp, out_projection, transposed, tiny))
        return tiny

    return register


def family_of_class(model_class: str) -> Family:
    """The family of a model class.

    Raises:
        UserError: no family is of that class, or several are.
    """
    families = [FAMILIES.get(name) for name in FAMILIES.names()]
    found = [family for family in families if family.model_class == model_class]
    if not found:
        known = ", ".join(family.model_class for family in families)
        raise UserError(f"expected one of the models {known}, got {model_class}; register its family, see tinymem/models/families.py")
    if len(found) > 1:
        raise UserError(f"expected one family of {model_class}, got {', '.join(f.name for f in found)}; leave one of the plugins out")
    return found[0]


@model_family("gpt", model_class="GPT", blocks="transformer.h", mlp="mlp", out_projection="mlp.c_proj")
def _gpt(vocabulary: int, length: int) -> nn.Module:
    return GPT(GPTConfig(vocab_size=vocabulary, n_positions=length, n_layer=2, n_embd=16, n_head=2), seed=1)


@model_family("gpt2", model_class="GPT2LMHeadModel", blocks="transformer.h", mlp="mlp", out_projection="mlp.c_proj", transposed=True)
def _gpt2(vocabulary: int, length: int) -> nn.Module:
    from transformers import GPT2Config

    return _random(GPT2Config, vocab_size=vocabulary, n_positions=length, n_embd=16, n_layer=2, n_head=2)


@model_family("gpt-neo", model_class="GPTNeoForCausalLM", blocks="transformer.h", mlp="mlp", out_projection="mlp.c_proj")
def _gpt_neo(vocabulary: int, length: int) -> nn.Module:
    from transformers import GPTNeoConfig

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}
    return _random(GPTNeoConfig, vocab_size=vocabulary, max_position_embeddings=length, **sizes)


@model_family("gpt-neox", model_class="GPTNeoXForCausalLM", blocks="gpt_neox.layers", mlp="mlp", out_projection="mlp.dense_4h_to_h")
def _gpt_neox(vocabulary: int, length: int) -> nn.Module:
    from transformers import GPTNeoXConfig

    return _random(GPTNeoXConfig, vocab_size=vocabulary, max_position_embeddings=length, **SIZES)


@model_family("llama", model_class="LlamaForCausalLM", blocks="model.layers", mlp="mlp", out_projection="mlp.down_proj")
def _llama(vocabulary: int, length: int) -> nn.Module:
    from transformers import LlamaConfig

    return _random(LlamaConfig, vocab_size=vocabulary, max_position_embeddings=length, num_key_value_heads=2, **SIZES)


@model_family("mistral", model_class="MistralForCausalLM", blocks="model.layers", mlp="mlp", out_projection="mlp.down_proj")
def _mistral(vocabulary: int, length: int) -> nn.Module:
    from transformers import MistralConfig

    return _random(MistralConfig, vocab_size=vocabulary, max_position_embeddings=length, num_key_value_heads=2, **SIZES)


@model_family("qwen2", model_class="Qwen2ForCausalLM", blocks="model.layers", mlp="mlp", out_projection="mlp.down_proj")
def _qwen2(vocabulary: int, length: int) -> nn.Module:
    from transformers import Qwen2Config

    return _random(Qwen2Config, vocab_size=vocabulary, max_position_embeddings=length, num_key_value_heads=2, **SIZES)


SIZES = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _random(config: Callable[..., PretrainedConfig], **options: object) -> nn.Module:
    from transformers import AutoModelForCausalLM

    made = config(**options, bos_token_id=0, eos_token_id=1)
    model: nn.Module = AutoModelForCausalLM.from_config(made)  # type: ignore[no-untyped-call]
    return model
