"""Forward and backward pass of a batch by kernels, without autograd: the gradient of all weights in some seven launches a layer.

The batch may be cut into parts that run side by side on streams of their own: each writes the rows of its tokens only, and adds to the
gradients atomically, so that parts need no order. A part's own kernels run one after another.

Shape suffixes: B rows, T tokens of a row, N tokens of the batch, L layers, D embedding, F neurons, H heads.
"""

# triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from tinymem.training.kernels import row_attention
from tinymem.training.kernels.launch import launch
from tinymem.training.kernels.row_attention import LOG2E
from tinymem.training.whole_step.attention import attention_backward
from tinymem.training.whole_step.backward import block_backward, first_backward, queries_backward
from tinymem.training.whole_step.forward import block_forward, first_forward, last_forward, last_hidden
from tinymem.training.whole_step.large_head import LargeHead
from tinymem.training.whole_step.tiles import SumTile, TokenTile
from tinymem.training.whole_step.weight_gradients import attention_weight_gradients, block_weight_gradients
from tinymem.training.whole_step.weights import KernelWeights

ONE_PASS_TILES = 5
"""Most tiles of a row whose queries' gradients fit the registers."""
Shares = Tensor | Callable[[Tensor], Tensor] | None
"""Weights [B, T] of the tokens' losses in their sum, or how they follow from these losses [B, P]; None: those of the mean."""
Part = tuple[int, int]
"""First row of a part of a batch, and the one behind its last."""


class BatchPass:
    """Passes over batches of one size.

    Args:
        weights: of the model.
        rows: of a batch.
        row_tokens: tokens of a row.
    """

    def __init__(self, weights: KernelWeights, rows: int, row_tokens: int) -> None:
        self.w, self.rows, self.T = weights, rows, row_tokens
        w, N, dtype = weights, rows * row_tokens, weights.head.dtype
        new = weights.flat.new_empty
        self.ids_N = torch.zeros(N, dtype=torch.int64, device=weights.flat.device)
        self._mean_N = self.shares_N = mean_shares(rows, row_tokens, weights.flat).flatten()
        self._given_N, self._losses_N = (torch.empty_like(self._mean_N) for _ in range(2))
        self.gates_LBF: Tensor | None = None
        self.x = [new(N, w.D) for _ in range(2)]
        self.hat_1, self.hat_2 = (new(w.L, N, w.D, dtype=dtype) for _ in range(2))
        self.rate_1, self.rate_2 = (_aligned(weights.flat, w.L, N) for _ in range(2))
        self.qkv, self.att = new(w.L, N, 3 * w.D, dtype=dtype), new(w.L, N, w.D, dtype=dtype)
        self.sums = _aligned(weights.flat, w.L, N * w.H)
        self.d_end, self.d_att = (new(N, w.D, dtype=dtype) for _ in range(2))
        self.d_mid = [new(N, w.D, dtype=dtype) for _ in range(2)]
        self.d_qkv = new(N, 3 * w.D, dtype=dtype)
        self.head = None if w.V else LargeHead(w, N)
        parts = min(w.tiles.parts, rows)
        self.parts = [(rows * i // parts, rows * (i + 1) // parts) for i in range(parts)]
        self._streams = [torch.cuda.Stream(weights.flat.device) for _ in self.parts] if weights.flat.is_cuda and parts > 1 else []

    def __call__(self, ids_BT: Tensor, shares: Shares = None, gates_LBF: Tensor | None = None) -> Tensor:
        """Put the gradient of the sum of all tokens' losses, times their shares, into the weights' gradient; returns that sum.

        Args:
            ids_BT: the batch.
            shares: of the tokens; that of a token is of the prediction behind it, so that of each row's last is 0.
            gates_LBF: 0 or 1 for each neuron in each row, in 8 bits; of one layer [1, B, F]: in all of them. None: all are on.
        """
        self.ids_N.view_as(ids_BT).copy_(ids_BT)
        self.gates_LBF = gates_LBF
        self._take(None if callable(shares) else shares)

        def weigh(losses_N: Tensor) -> Tensor:
            if callable(shares):
                self._take(shares(losses_N.view_as(ids_BT)[:, :-1]))
            return self.shares_N

        self.w.fold()
        if self.head is None and not callable(shares):
            self._each(self.both_ways)
        else:
            self._each(self.forward)
            self._weighed(weigh)
            self._each(self.backward)
        self.w.unfold()
        return self.w.loss

    def _take(self, shares_BT: Tensor | None) -> None:
        self.shares_N = self._mean_N if shares_BT is None else self._given_N
        if shares_BT is not None:
            self._given_N.copy_(shares_BT.flatten())

    def _weighed(self, weigh: Callable[[Tensor], Tensor]) -> None:
        """Let the head, behind a forward pass of all rows, go on with shares that may depend on the losses."""
        if self.head is not None:
            self.head(self.ids_N, weigh, self.d_end)
            return
        self._each(partial(self.last_forward, losses_N=self._losses_N))
        weigh(self._losses_N)
        self._each(self.last_forward)

    def _each(self, call: Callable[[Part], object]) -> None:
        """Call it for all parts, side by side where there are streams, and wait for them."""
        if not self._streams:
            for part in self.parts:
                call(part)
            return
        main = torch.cuda.current_stream(self.w.flat.device)
        for part, stream in zip(self.parts, self._streams, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                call(part)
        for stream in self._streams:
            main.wait_stream(stream)

    def both_ways(self, part: Part) -> None:
        """Forward and backward pass of some rows."""
        self.forward(part)
        self.last_forward(part)
        self.backward(part)

    def forward(self, part: Part) -> None:
        """Forward pass of some rows up to the last attention; with a large vocabulary up to the head."""
        self.first_forward(part)
        for layer in range(self.w.L):
            self.attention(layer, part)
            if layer < self.w.L - 1:
                self.block_forward(layer, part)
        if self.head is not None:
            self.last_hidden(part, self.head)

    def backward(self, part: Part) -> None:
        """Backward pass of some rows, from the gradient of the last residual stream in `d_end`."""
        for layer in reversed(range(self.w.L)):
            self.block_backward(layer, part)
            self.block_weight_gradients(layer, part)
            self.attention_backward(layer, part)
            self.attention_weight_gradients(layer, part)
        self.first_backward(part)

    def _tokens(self, part: Part) -> Part:
        return part[0] * self.T, part[1] * self.T

    def _grid(self, part: Part, tile: TokenTile) -> int:
        tiles: int = triton.cdiv((part[1] - part[0]) * self.T, tile.tokens)
        return tiles

    def first_forward(self, part: Part) -> None:
        """Embeddings, and the first queries, keys and values."""
        w, tile = self.w, self.w.tiles.forward
        outputs = self.x[0], self.hat_1[0], self.rate_1[0], self.qkv[0], w.copy("qkv", 0, tile.columns), w.qkv_b[0]
        embeddings = w.of("wte.weight", None), w.of("wpe.weight", None)
        sizes = (w.D, tile.tokens, tile.columns, tile.stages, w.tiles.descriptors)
        launch(first_forward, self._grid(part, tile))(
            self.ids_N, *embeddings, *outputs, *self._tokens(part), self.T, w.eps, *sizes, num_warps=tile.warps
        )

    def _gates(self, layer: int) -> tuple[Tensor | None, int]:
        """Of a layer's neurons, and how many tokens a row has, as the kernels take them."""
        gates = self.gates_LBF
        return gates if gates is None else gates[layer if len(gates) > 1 else 0], self.T

    def _block_weights(self, layer: int, tile: TokenTile) -> tuple[Any, ...]:
        """Out-projection and feed-forward block, each with its bias, and the neurons' gates, as the forward kernels take them."""
        w = self.w
        inner, down = (w.copy(name, layer, tile.neurons) for name in ("inner", "down"))
        biases = w.of("attn.c_proj.bias", layer), w.of("mlp.c_proj.bias", layer)
        return w.copy("out", layer), biases[0], inner, w.inner_b[layer], down, biases[1], *self._gates(layer)

    def block_forward(self, layer: int, part: Part) -> None:
        """From a layer's attention to the next one's queries, keys and values."""
        w, tile = self.w, self.w.tiles.forward
        outputs = self.x[(layer + 1) % 2], self.hat_2[layer], self.rate_2[layer], self.hat_1[layer + 1], self.rate_1[layer + 1]
        queries = w.copy("qkv", layer + 1, tile.columns), w.qkv_b[layer + 1]
        sizes = (w.D, w.F, tile.tokens, tile.neurons, tile.columns, tile.stages, w.tiles.descriptors)
        launch(block_forward, self._grid(part, tile))(
            self.att[layer], self.x[layer % 2], *outputs, self.qkv[layer + 1], *self._block_weights(layer, tile), *queries,
            *self._tokens(part), w.eps, *sizes, num_warps=tile.warps,
        )  # fmt: skip

    def last_forward(self, part: Part, losses_N: Tensor | None = None) -> None:
        """From the last attention to the loss, and to the gradient of the last residual stream, in `d_end`; or to `losses_N` only."""
        w, tile, last = self.w, self.w.tiles.forward, self.w.L - 1
        rows = self.att[last], self.x[last % 2], self.hat_2[last], self.rate_2[last]
        results = losses_N, w.loss, self.d_end, w.d_head, w.d_b_head
        sizes = (w.D, w.F, w.V, tile.tokens, tile.neurons, tile.stages, w.tiles.descriptors)
        launch(last_forward, self._grid(part, tile))(
            *rows, *self._block_weights(last, tile), self.ids_N, self.shares_N, w.head, w.head_b, *results, *self._tokens(part), w.words,
            w.eps, *sizes, num_warps=tile.warps,
        )  # fmt: skip

    def last_hidden(self, part: Part, head: LargeHead) -> None:
        """From the last attention to the hidden states that a head of its own reads."""
        w, tile, last = self.w, self.w.tiles.forward, self.w.L - 1
        rows = self.att[last], self.x[last % 2], self.hat_2[last], self.rate_2[last]
        results = head.hat_ND, head.rate_N, head.hidden_ND
        sizes = (w.D, w.F, tile.tokens, tile.neurons, tile.stages, w.tiles.descriptors)
        launch(last_hidden, self._grid(part, tile))(
            *rows, *self._block_weights(last, tile), w.of("ln_f.weight", None), *results, *self._tokens(part), w.eps, *sizes,
            num_warps=tile.warps,
        )  # fmt: skip

    def block_backward(self, layer: int, part: Part) -> None:
        """From the queries, keys and values of the layer above to this layer's attention."""
        w, tile, above = self.w, self.w.tiles.backward, min(layer + 1, self.w.L - 1)
        top = layer == above
        into = self.d_end if top else self.d_mid[above % 2]
        weights = w.copy("inner", layer, tile.neurons), w.inner_b[layer], w.copy("down", layer, tile.neurons), w.copy("out", layer)
        gates = self._gates(layer)
        results = self.d_end, self.d_mid[layer % 2], self.d_att, w.d("mlp.c_proj.bias", layer), w.d("attn.c_proj.bias", layer)
        sizes = (w.D, w.F, tile.tokens, tile.neurons, tile.columns, tile.stages, w.tiles.descriptors)
        launch(block_backward, self._grid(part, tile))(
            self.d_qkv, self.hat_1[above], self.rate_1[above], into, w.copy("qkv", above, tile.columns), self.hat_2[layer],
            self.rate_2[layer], *weights, *gates, *results, *self._tokens(part), not top, w.tiles.park, *sizes, num_warps=tile.warps,
        )  # fmt: skip

    def queries_backward(self, layer: int, part: Part) -> None:
        """From the queries, keys and values of the layer above to the gradient of this layer's output, in `d_end`."""
        w, tile, above = self.w, self.w.tiles.backward, layer + 1
        sources = self.d_qkv, self.hat_1[above], self.rate_1[above], self.d_mid[above % 2], w.copy("qkv", above, tile.columns)
        sizes = (w.D, tile.tokens, tile.columns, tile.stages, w.tiles.descriptors)
        launch(queries_backward, self._grid(part, tile))(*sources, self.d_end, *self._tokens(part), *sizes, num_warps=tile.warps)

    def first_backward(self, part: Part) -> None:
        """From the first queries, keys and values to the embeddings."""
        w, tile = self.w, self.w.tiles.first
        sources = self.d_qkv, self.hat_1[0], self.rate_1[0], self.d_mid[0], w.copy("qkv", 0, tile.columns), self.ids_N
        sizes = (w.D, tile.tokens, tile.columns, w.V, tile.stages, w.tiles.descriptors)
        launch(first_backward, self.T, triton.cdiv(part[1] - part[0], tile.tokens))(
            *sources, w.d("wte.weight", None), w.d("wpe.weight", None), *part, self.T, w.words, *sizes, num_warps=tile.warps
        )

    def attention(self, layer: int, part: Part) -> None:
        """Attention of some rows, by the kernel that the other way of training has too."""
        K, first = self.w.D // self.w.H, part[0] * self.T
        block, warps, stages = row_attention.FORWARD if K < 64 else row_attention.WIDE
        rows = self.qkv[layer][first:], self.att[layer][first:], self.sums[layer][first * self.w.H :]
        grid = triton.cdiv(self.T, block), (part[1] - part[0]) * self.w.H
        sizes = LOG2E / math.sqrt(K), self.T, self.w.H, K, block
        launch(row_attention._attention_forward, *grid)(*rows, *sizes, num_warps=warps, num_stages=stages)

    def attention_backward(self, layer: int, part: Part) -> None:
        """Gradient of the joint projection: in one pass over short rows."""
        K, first = self.w.D // self.w.H, part[0] * self.T
        slope = 1 / math.sqrt(K)
        block, warps = self.w.tiles.attention
        tiles, pairs = triton.cdiv(self.T, block), (part[1] - part[0]) * self.w.H
        scales = LOG2E * slope, slope
        if tiles <= ONE_PASS_TILES and K < 64:
            rows = self.qkv[layer], self.att[layer], self.sums[layer], self.d_att, self.d_qkv
            launch(attention_backward, pairs)(*rows, *scales, part[0], self.T, self.w.H, K, block, tiles, num_warps=warps)
            return
        block, warps, stages = row_attention.BACKWARD if K < 64 else row_attention.WIDE
        tensors = (self.qkv[layer][first:], self.att[layer][first:], self.sums[layer][first * self.w.H :])
        launch(row_attention._attention_backward, triton.cdiv(self.T, block), pairs, 2)(
            *tensors, self.d_att[first:], self.d_qkv[first:], *scales, self.T, self.w.H, K, block, num_warps=warps, num_stages=stages
        )

    def attention_weight_gradients(self, layer: int, part: Part) -> None:
        """Those of the joint projection and the out-projection."""
        w, tile = self.w, self.w.tiles.attention_weights
        results = w.d("attn.c_attn.weight", layer), w.d("attn.c_attn.bias", layer), w.d("attn.c_proj.weight", layer)
        sources = self.d_qkv, self.hat_1[layer], self.d_mid[layer % 2], self.att[layer]
        piece, pieces = self._pieces(part, tile)
        launch(attention_weight_gradients, 4 * w.D // tile.rows, pieces)(
            *sources, *results, *self._tokens(part), piece, w.D, tile.rows, tile.tokens, tile.stages, num_warps=tile.warps
        )

    def block_weight_gradients(self, layer: int, part: Part) -> None:
        """Those of the feed-forward block."""
        w, tile = self.w, self.w.tiles.block_weights
        results = w.d("mlp.c_fc.weight", layer), w.d("mlp.c_fc.bias", layer), w.d("mlp.c_proj.weight", layer)
        sources = self.hat_2[layer], self.d_end, w.copy("inner", layer), w.inner_b[layer], w.copy("down", layer), *self._gates(layer)
        piece, pieces = self._pieces(part, tile)
        launch(block_weight_gradients, w.F // tile.rows, pieces)(
            *sources, *results, *self._tokens(part), piece, w.D, w.F, tile.rows, tile.tokens, tile.stages, num_warps=tile.warps
        )

    def _pieces(self, part: Part, tile: SumTile) -> tuple[int, int]:
        """Tokens of a piece of a sum, and how many pieces the part has."""
        first, end = self._tokens(part)
        piece = triton.cdiv(triton.cdiv(self.rows * self.T, tile.pieces), tile.tokens) * tile.tokens
        return piece, triton.cdiv(end - first, piece)


def _aligned(like: Tensor, layers: int, count: int) -> Tensor:
    """A number [layers, count], each layer's at an address of the same alignment: kernels are compiled anew for another."""
    return like.new_empty(layers, -(-count // 16) * 16)


def mean_shares(rows: int, row_tokens: int, like: Tensor) -> Tensor:
    """Shares [B, T] of all tokens' losses in their mean: those of each row's last, which predict nothing, are 0."""
    shares_BT = like.new_full((rows, row_tokens), 1 / (rows * (row_tokens - 1)))
    shares_BT[:, -1] = 0
    return shares_BT
