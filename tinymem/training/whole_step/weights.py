"""The flat weights of a model as kernels read them, and the flat gradient that they add to.

Weights are where `FlatAdamW` keeps them, in the model's own order, so that optimizer states and checkpoints are the model's; what the
kernels need otherwise (bf16 copies, norms folded in) is made at the start of each step.

Shape suffixes: L layers, D embedding, F neurons, V words (padded; none of a large vocabulary, which
has a head of its own).
"""

# triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.launch import launch
from tinymem.training.whole_step.folding import fold_blocks, fold_weights, unfold_gradients
from tinymem.training.whole_step.tiles import SMALL_VOCABULARY, Tiles


class KernelWeights:
    """Weights, their copies for products, and their gradient.

    Args:
        gpt: the model; only its sizes and the order of its parameters are read.
        flat: its weights, all parameters one after another.
        dtype: of the products.
        tiles: of `fold_weights`, and whether there are descriptors.

    Attributes:
        gradient: of `flat`, after `unfold`.
        loss: the sum of the tokens' losses times their shares, a scalar.
    """

    def __init__(self, gpt: GPT, flat: Tensor, dtype: torch.dtype, tiles: Tiles) -> None:
        config = gpt.config
        self.flat, self.tiles = flat, tiles
        self.L, self.D, self.F, self.H = config.n_layer, config.n_embd, config.d_ff, config.n_head
        self.words, self.eps = config.vocab_size, config.layer_norm_epsilon
        self.V = SMALL_VOCABULARY if self.words <= SMALL_VOCABULARY else 0
        self.places = places(gpt)
        self.stride = self.places["h.1.ln_1.weight"] - self.places["h.0.ln_1.weight"] if self.L > 1 else 0
        self._make_gradients()
        self._make_copies(dtype)
        self._descriptors: dict[tuple[str, int, int], TensorDescriptor] = {}

    def _make_gradients(self) -> None:
        n = -(-len(self.flat) // 16) * 16
        self._zeroed = self.flat.new_zeros(n + self.V * self.D + self.V + 1)
        head, bias = n + self.V * self.D, n + self.V * self.D + self.V
        self.gradient, self.loss = self._zeroed[: len(self.flat)], self._zeroed[bias]
        self.d_head, self.d_b_head = self._zeroed[n:head], self._zeroed[head:bias]

    def _make_copies(self, dtype: torch.dtype) -> None:
        L, D, F = self.L, self.D, self.F
        sizes = {"qkv": 3 * D, "out": D, "inner": F, "down": F}
        self.copies = {name: self.flat.new_empty(L, rows, D, dtype=dtype) for name, rows in sizes.items()}
        self.qkv_b, self.inner_b = self.flat.new_empty(L, 3 * D), self.flat.new_empty(L, F)
        self.head, self.head_b = self.flat.new_empty(self.V, D, dtype=dtype), self.flat.new_empty(self.V)

    def of(self, name: str, layer: int | None = 0) -> Tensor:
        """The flat weights from a parameter on, which a kernel takes as its address; `layer` None: of no layer."""
        return self.flat[self.place(name, layer) :]

    def d(self, name: str, layer: int | None = 0) -> Tensor:
        """The flat gradient from a parameter on."""
        return self.gradient[self.place(name, layer) :]

    def place(self, name: str, layer: int | None) -> int:
        """Where a parameter begins in the flat weights; `layer` None: of no layer."""
        return self.places[name if layer is None else f"h.{layer}.{name}"]

    def copy(self, name: str, layer: int, rows: int = 0) -> Tensor | TensorDescriptor:
        """A layer's copy of a matrix: where there are descriptors and `rows` are given, one that loads so many rows."""
        if not (rows and self.tiles.descriptors):
            return self.copies[name][layer]
        key = name, layer, rows
        if key not in self._descriptors:
            self._descriptors[key] = TensorDescriptor.from_tensor(self.copies[name][layer], [rows, self.D])
        return self._descriptors[key]

    def fold(self) -> None:
        """Zero the gradients, and make the copies from the weights."""
        self._zeroed.zero_()
        names = ("attn.c_attn.weight", "attn.c_attn.bias", "ln_1.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_fc.bias")
        sources = [self.of(name) for name in (*names, "ln_2.weight", "mlp.c_proj.weight")]
        sources += [self.of("wte.weight", None), self.of("ln_f.weight", None)]
        copies = (self.copies["qkv"], self.qkv_b, self.copies["out"], self.copies["inner"], self.inner_b, self.copies["down"])
        R, grid = self.tiles.fold, (4 * self.D + 2 * self.F, self.L + 1)
        launch(fold_weights, grid[0] // R, grid[1])(
            *sources, *copies, self.head, self.head_b, self.L, self.words, self.stride, self.D, self.F, R, self.V
        )

    def fold_blocks(self, first: int, layers: int) -> None:
        """Make the copies of some layers' feed-forward blocks."""
        names = ("mlp.c_fc.weight", "mlp.c_fc.bias", "ln_2.weight", "mlp.c_proj.weight")
        copies = (self.copies["inner"][first], self.inner_b[first], self.copies["down"][first])
        R = self.tiles.fold
        launch(fold_blocks, 2 * self.F // R, layers)(*(self.of(name, first) for name in names), *copies, self.stride, self.D, self.F, R)

    def unfold(self) -> None:
        """Turn the gradients of folded weights into those of the model's."""
        layered = ("attn.c_attn.weight", "ln_1.weight", "mlp.c_fc.weight", "ln_2.weight")
        weights = [*(self.of(name) for name in layered), self.of("wte.weight", None), self.of("ln_f.weight", None)]
        with_biases = ("attn.c_attn.weight", "attn.c_attn.bias", "ln_1.weight", "mlp.c_fc.weight", "mlp.c_fc.bias", "ln_2.weight")
        gradients = [*(self.d(name) for name in with_biases), self.d("wte.weight", None), self.d("ln_f.weight", None)]
        R = self.tiles.fold
        launch(unfold_gradients, (3 * self.D + self.F) // R + 1, self.L)(
            *weights, *gradients, self.d_head, self.d_b_head, self.words, self.stride, self.D, self.F, R, self.V
        )


def places(gpt: GPT) -> dict[str, int]:
    """Where each parameter begins among all of them in a row, by its name in the transformer."""
    found, start = {}, 0
    for name, parameter in gpt.named_parameters():
        found[name.removeprefix("transformer.")] = start
        start += parameter.numel()
    return found
