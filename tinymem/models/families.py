"""Model families: where blocks, projections and neurons are in each class of models, one entry a family.

    @model_family("mine", model_class="MyModelForCausalLM", blocks="model.layers", in_projections=("mlp.up",), out_projection="mlp.down")
    def my_family(vocabulary, length):
        \"\"\"A tiny random model of the family, for tests.\"\"\"
        return MyModelForCausalLM(MyConfig(vocab_size=vocabulary, max_position_embeddings=length, ...))

A neuron is one coordinate of a feed-forward block's hidden vector after the non-linearity, that is one input of the block's
out-projection; its value vector holds the weights it multiplies there (Chang et al., section 2). Hooking the *input of the
out-projection* is one rule that also covers gated blocks (Llama), which have two projections into the hidden vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tinymem.errors import UserError
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.models.opt import keep_rows_apart
from tinymem.registry import Registry, origin_of
from tinymem.runtime.json import Json

TinyModel = Callable[[int, int], nn.Module]
"""(size of the vocabulary, positions) -> a random model of two blocks."""


@dataclass(frozen=True)
class Family:
    """A registered family: attribute paths of a model class.

    Attributes:
        name: short name.
        model_class: name of the class, as `architectures` of a checkpoint's config.json has it.
        blocks: path to the list of blocks.
        in_projections: paths from a block to the linear layers into its hidden vector: one, or gate and up of a gated block.
        out_projection: path from a block to the linear layer that its neurons are the inputs of.
        final_norm: name of the norm after the last block, which is beside the list of blocks; empty: there is none.
        transposed: whether the feed-forward matrices are stored [in, out] (transformers' Conv1D) instead of [out, in]; that layer's is
            then [neurons, embedding].
        tiny: makes a tiny random model, for tests.
        prepare: changes how a model of the class computes, and not what, so that a neuron layer's inputs are [B, T, F]; None: they are.
    """

    name: str
    model_class: str
    blocks: str
    in_projections: tuple[str, ...]
    out_projection: str
    final_norm: str
    transposed: bool
    tiny: TinyModel
    prepare: Callable[[nn.Module], None] | None = None

    @property
    def origin(self) -> str:
        """File and name of the defining function; registering the same origin again is no clash of names."""
        return origin_of(self.tiny)


FAMILIES: Registry[Family] = Registry("model family", entry_points="tinymem.families")


def model_family(
    name: str,
    *,
    model_class: str,
    blocks: str,
    in_projections: tuple[str, ...],
    out_projection: str,
    final_norm: str = "",
    transposed: bool = False,
    prepare: Callable[[nn.Module], None] | None = None,
) -> Callable[[TinyModel], TinyModel]:
    """Register a family with a function `(vocabulary, length) -> tiny random model` for tests; the other arguments are those of `Family`.

    Raises:
        UserError: another family has the name.
    """

    def register(tiny: TinyModel) -> TinyModel:
        FAMILIES.register(name, Family(name, model_class, blocks, in_projections, out_projection, final_norm, transposed, tiny, prepare))
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
        known = ", ".join(sorted(family.model_class for family in families))
        raise UserError(
            f"expected one of the models {known}, got {model_class}; what is missing is where its blocks and projections are: "
            "a plugin with @model_family says it, see docs/extending.md"
        )
    if len(found) > 1:
        raise UserError(f"expected one family of {model_class}, got {', '.join(f.name for f in found)}; leave one of the plugins out")
    return found[0]


def _tiny(model: str, **sizes: Json) -> TinyModel:
    """A maker of random models of a class of transformers, by the beginning of the class's name."""

    def make(vocabulary: int, length: int) -> nn.Module:
        import transformers

        options = {"vocab_size": vocabulary, "max_position_embeddings": length, "bos_token_id": 0, "eos_token_id": 1, **sizes}
        config = getattr(transformers, f"{model}Config")(**options)
        made: nn.Module = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        prepare_model(made)
        return made

    return make


def prepare_model(model: nn.Module) -> nn.Module:
    """The model, in place, with the inputs of its neuron layers as [B, T, F] (`Family.prepare`)."""
    prepare = family_of_class(type(model).__name__).prepare
    if prepare is not None:
        prepare(model)
    return model


SIZES: dict[str, Json] = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED: dict[str, Json] = {**SIZES, "num_key_value_heads": 2}
OLD: dict[str, Json] = {"n_embd": 16, "n_layer": 2, "n_head": 2}


@model_family(
    "gpt", model_class="GPT", blocks="transformer.h", in_projections=("mlp.c_fc",), out_projection="mlp.c_proj", final_norm="ln_f"
)
def _gpt(vocabulary: int, length: int) -> nn.Module:
    return GPT(GPTConfig(vocab_size=vocabulary, n_positions=length, n_layer=2, n_embd=16, n_head=2), seed=1)


def _transformers_family(
    name: str,
    model: str,
    sizes: dict[str, Json],
    blocks: str,
    ins: str,
    out: str,
    *,
    norm: str = "norm",
    model_class: str = "",
    transposed: bool = False,
    prepare: Callable[[nn.Module], None] | None = None,
) -> None:
    """Register a class of transformers: its name's beginning, sizes of a tiny one, and the paths, those into the neurons with spaces."""
    register = model_family(
        name,
        model_class=model_class or f"{model}ForCausalLM",
        blocks=blocks,
        in_projections=tuple(ins.split()),
        out_projection=out,
        final_norm=norm,
        transposed=transposed,
        prepare=prepare,
    )
    register(_tiny(model, **sizes))


LAYERS, GATED = "model.layers", ("mlp.gate_proj mlp.up_proj", "mlp.down_proj")
NEO: dict[str, Json] = {"hidden_size": 16, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}
OPT_SIZES: dict[str, Json] = {"hidden_size": 16, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16}

_transformers_family(
    "gpt2", "GPT2", OLD, "transformer.h", "mlp.c_fc", "mlp.c_proj", norm="ln_f", model_class="GPT2LMHeadModel", transposed=True
)
_transformers_family("gpt-neo", "GPTNeo", NEO, "transformer.h", "mlp.c_fc", "mlp.c_proj", norm="ln_f")
_transformers_family(
    "gpt-neox", "GPTNeoX", SIZES, "gpt_neox.layers", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", norm="final_layer_norm"
)  # Pythia
_transformers_family("gpt-j", "GPTJ", {**OLD, "rotary_dim": 4}, "transformer.h", "mlp.fc_in", "mlp.fc_out", norm="ln_f")
_transformers_family("opt", "OPT", OPT_SIZES, "model.decoder.layers", "fc1", "fc2", norm="final_layer_norm", prepare=keep_rows_apart)
_transformers_family("phi", "Phi", SIZES, LAYERS, "mlp.fc1", "mlp.fc2", norm="final_layernorm")  # Phi-1, 1.5, 2
_transformers_family("phi3", "Phi3", {**GROUPED, "pad_token_id": None}, LAYERS, "mlp.gate_up_proj", "mlp.down_proj")  # Phi-3, 3.5, 4
_transformers_family("llama", "Llama", GROUPED, LAYERS, *GATED)  # Llama 1 to 3, SmolLM 1 and 2
_transformers_family("smollm3", "SmolLM3", {**GROUPED, "pad_token_id": None}, LAYERS, *GATED)
_transformers_family("mistral", "Mistral", GROUPED, LAYERS, *GATED)
_transformers_family("qwen2", "Qwen2", GROUPED, LAYERS, *GATED)  # Qwen 1.5 to 2.5
_transformers_family("qwen3", "Qwen3", {**GROUPED, "head_dim": 8}, LAYERS, *GATED)
_transformers_family("gemma", "Gemma", {**GROUPED, "head_dim": 8}, LAYERS, *GATED)
_transformers_family("gemma2", "Gemma2", {**GROUPED, "head_dim": 8}, LAYERS, *GATED)
_transformers_family("gemma3", "Gemma3Text", {**GROUPED, "head_dim": 8}, LAYERS, *GATED, model_class="Gemma3ForCausalLM")
_transformers_family("olmo", "Olmo", {**GROUPED, "pad_token_id": None}, LAYERS, *GATED)
_transformers_family("olmo2", "Olmo2", {**GROUPED, "pad_token_id": None}, LAYERS, *GATED)
