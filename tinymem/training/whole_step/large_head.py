"""The head of a model with a large vocabulary, between the forward and the backward passes of all tokens.

Its logits are never written: `kernels.fused_head` has the products.

Shape suffixes: N tokens of the batch, T tokens of a row, D embedding, V vocabulary.
"""

# triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Callable

import triton
from torch import Tensor

from tinymem.training.kernels.fused_head import head_backward, head_forward
from tinymem.training.kernels.launch import launch
from tinymem.training.whole_step.backward import hidden_backward
from tinymem.training.whole_step.weights import KernelWeights

TOKENS_OF_A_TILE = 32


class LargeHead:
    """The head over N tokens; the last forward kernel writes `hidden_ND`, and the normalized rows with their rates."""

    def __init__(self, weights: KernelWeights, tokens: int) -> None:
        new, dtype = weights.flat.new_empty, weights.head.dtype
        self.w, self.N = weights, tokens
        self.hidden_ND, self.hat_ND = (new(tokens, weights.D, dtype=dtype) for _ in range(2))
        self.rate_N = new(tokens)

    def __call__(self, ids_N: Tensor, weigh: Callable[[Tensor], Tensor], d_x_ND: Tensor) -> None:
        """Put the loss and the head's gradients where they belong, and the gradient of the last residual stream into `d_x_ND`.

        `weigh` gives the tokens' shares from their losses [N].
        """
        w, size = self.w, self.w.words * self.w.D
        weight_VD = w.of("wte.weight", None)[:size].view(w.words, w.D).to(self.hidden_ND.dtype)
        targets_N = ids_N.roll(-1)  # the last token's is no word that follows it, and of no share
        losses_N, sums_N = head_forward(self.hidden_ND, weight_VD, targets_N)
        shares_N = weigh(losses_N)
        w.loss.copy_((losses_N * shares_N).sum())
        d_weight_VD = w.d("wte.weight", None)[:size].view(w.words, w.D)
        d_hidden_ND = head_backward(self.hidden_ND, weight_VD, targets_N, sums_N, shares_N, d_weight_VD)
        norm, tile = "ln_f.weight", TOKENS_OF_A_TILE
        launch(hidden_backward, triton.cdiv(self.N, tile))(
            d_hidden_ND, w.of(norm, None), self.hat_ND, self.rate_N, d_x_ND, w.d(norm, None), 0, self.N, w.D, tile, num_warps=4
        )
