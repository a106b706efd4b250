"""The gradient of a model by kernels, for batches of any number of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinymem.models.gpt2 import GPT
from tinymem.training.kernels.launch import compile_side_by_side
from tinymem.training.whole_step.passes import BatchPass, Shares
from tinymem.training.whole_step.tiles import Tiles
from tinymem.training.whole_step.weights import KernelWeights


class KernelGradients:
    """Calling it puts the gradient of a batch into `flat`.

    Args:
        gpt: the model; only its sizes and the order of its parameters are read.
        weights: its weights, all parameters one after another, which may change between calls.
        dtype: of the products.
        tiles: of the kernels.
    """

    def __init__(self, gpt: GPT, weights: Tensor, dtype: torch.dtype = torch.bfloat16, tiles: Tiles | None = None) -> None:
        self._weights = KernelWeights(gpt, weights, dtype, tiles or Tiles())
        self._passes: dict[tuple[int, int], BatchPass] = {}

    @property
    def flat(self) -> Tensor:
        """The gradient of the last call, in the order of the weights."""
        return self._weights.gradient

    def __call__(self, ids_BT: Tensor, shares: Shares = None, gates_LBF: Tensor | None = None) -> Tensor:
        """The sum of the tokens' losses times their shares, as `BatchPass`; nothing is read back, so that a CUDA graph can hold it."""
        return self._pass_of(len(ids_BT), ids_BT.shape[1])(ids_BT, shares, gates_LBF)

    def compile(
        self,
        ids_BT: Tensor,
        shares: Shares = None,
        gates_LBF: Tensor | None = None,
        beside: Callable[[Tensor], object] | None = None,
    ) -> Callable[[], None]:
        """Begin to compile the kernels for such calls, and return what waits for them; `beside` launches others that take the gradient."""

        def launches() -> None:
            self(ids_BT, shares, gates_LBF)
            if beside is not None:
                beside(self.flat)

        return compile_side_by_side(launches, ids_BT.device) if ids_BT.is_cuda else lambda: None

    def _pass_of(self, rows: int, row_tokens: int) -> BatchPass:
        key = rows, row_tokens
        if key not in self._passes:
            self._passes[key] = BatchPass(self._weights, rows, row_tokens)
        return self._passes[key]
