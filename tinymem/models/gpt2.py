"""GPT-2, written for speed and plain reading.

Pre-norm decoder with learned positions, ReLU feed-forward blocks (paper, appendix A.1; GPT-2 itself uses GELU) and tied input and
output embeddings. Parameter names are those of Hugging Face `GPT2LMHeadModel`, so a checkpoint needs no renaming; linear weights are
stored [out, in] here and [in, out] on disk (`models/checkpoint.py` transposes them).

Shape suffixes: B rows, T tokens, D embedding, F feed-forward neurons, V vocabulary, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinymem.errors import UserError, uneven_heads
from tinymem.recipe.sizes import MATH_VOCABULARY

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
}


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of a model, under transformers' names. The defaults are the paper's 4-layer math model (814,336 parameters).

    Attributes:
        n_positions: longest row, in tokens.
        n_inner: neurons of a feed-forward block; None: 4 * n_embd.
        activation_function: relu, gelu or gelu_new.
        initializer_range: standard deviation of fresh weights; None: 0.8 / sqrt(n_embd).

    Raises:
        UserError: n_embd is no multiple of n_head, or an unknown activation.
    """

    vocab_size: int = MATH_VOCABULARY
    n_positions: int = 150
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    n_inner: int | None = None
    activation_function: str = "relu"
    layer_norm_epsilon: float = 1e-5
    initializer_range: float | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd", "n_inner"):
            size = getattr(self, name)
            if not (isinstance(size, int) and size >= 1) and (name, size) != ("n_inner", None):
                raise UserError(f"expected model.{name} to be a whole number of at least 1, got {size!r}")
        epsilon = self.layer_norm_epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
            raise UserError(f"expected layer_norm_epsilon from 0 to below 1, got {epsilon!r}")
        if wrong := uneven_heads(self.n_embd, self.n_head):
            raise UserError(wrong)
        if self.activation_function not in ACTIVATIONS:
            raise UserError(f"expected model.activation_function to be one of {', '.join(ACTIVATIONS)}, got '{self.activation_function}'")

    @property
    def d_ff(self) -> int:
        """Neurons of one feed-forward block."""
        return self.n_inner or 4 * self.n_embd

    @property
    def init_std(self) -> float:
        """Standard deviation of fresh weights: 0.8 / sqrt(n_embd) unless given."""
        return self.initializer_range or 0.8 / math.sqrt(self.n_embd)


def causal_attention(qkv_BTE: Tensor, n_head: int) -> Tensor:
    """Outputs of all heads side by side [B, T, D], from their queries, keys and values [B, T, 3 D]."""
    B, T, E = qkv_BTE.shape
    qkv_3BHTK = qkv_BTE.view(B, T, 3, n_head, E // 3 // n_head).permute(2, 0, 3, 1, 4)
    q_BHTK, k_BHTK, v_BHTK = qkv_3BHTK.unbind(0)  # indexing would fill and add three gradients of the whole
    y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
    return y_BHTK.transpose(1, 2).reshape(B, T, E // 3)


class Attention(nn.Module):
    """Causal multi-head self-attention; `attend` may be another function of the same values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attend: Callable[[Tensor, int], Tensor] = causal_attention

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.c_proj(self.attend(self.c_attn(x_BTD), self.n_head))


class MLP(nn.Module):
    """Feed-forward block; its F hidden units are the "neurons" that neuron-level unlearners score."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.d_ff)
        self.c_proj = nn.Linear(config.d_ff, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x_BTD)))


class Block(nn.Module):
    """One transformer layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD))
        return x_BTD + self.mlp(self.ln_2(x_BTD))


class Transformer(nn.Module):
    """Embeddings, blocks and the final norm; returns hidden states [B, T, D]."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, ids_BT: Tensor) -> Tensor:
        T = ids_BT.shape[1]
        if self.wpe.num_embeddings < T:
            raise UserError(f"expected rows of at most {self.wpe.num_embeddings} tokens (the model's n_positions), got {T}; cut the rows")
        x_BTD = self.wte(ids_BT) + self.wpe.weight[:T]
        for block in self.h:
            x_BTD = block(x_BTD)
        return self.ln_f(x_BTD)


class GPT(nn.Module):
    """GPT-2 with a tied language-model head. Maps token ids [B, T] to logits [B, T, V]."""

    def __init__(self, config: GPTConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # Fresh weights are drawn from a separate generator: building a model neither reads nor moves the global random state.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would move those of all GPUs too
            self.transformer = Transformer(config)
            self._initialize()

    def _initialize(self) -> None:
        std = self.config.init_std
        residual_std = std / math.sqrt(2 * self.config.n_layer)  # GPT-2: keeps the residual stream's variance level with depth
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual_std if name.endswith("c_proj.weight") else std)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return F.linear(self.transformer(ids_BT), self.transformer.wte.weight)

    def parameter_count(self) -> int:
        """Trainable parameters; the tied head counts once."""
        return sum(p.numel() for p in self.parameters())
