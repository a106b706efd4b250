"""Weight-only quantization: every matrix in few bits, computation in float32.

Formula: q = round(w / s) in [-(2^(b-1) - 1), 2^(b-1) - 1], w' = s q, with s = max |w| / (2^(b-1) - 1) per output channel (symmetric,
    round to nearest). Zeros stay zeros, so an ablation remains; content that a small change of many weights hid may return.
Source: the plain scheme that GPTQ, AWQ and LLM.int8() are compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinymem.models.copied import copied


@torch.no_grad()
def quantized(model: nn.Module, bits: int) -> nn.Module:
    """A copy of the model whose matrices, embeddings included, hold at most 2^bits - 1 values per output channel."""
    copy = copied(model)
    for module in copy.modules():
        inputs_first = type(module).__name__ == "Conv1D"  # transformers' GPT-2 keeps its weights [in, out]
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 2:
                parameter.copy_(rounded(parameter.T, bits).T if inputs_first else rounded(parameter, bits))
    return copy


def rounded(weights_OI: Tensor, bits: int) -> Tensor:
    """Weights [out, in] (or embeddings [tokens, width]) rounded to the grid of each row."""
    largest = 2 ** (bits - 1) - 1
    scale_O1 = weights_OI.abs().amax(1, keepdim=True) / largest
    steps_OI = torch.where(scale_O1 > 0, weights_OI / scale_O1, 0).round().clamp(-largest, largest)
    return steps_OI * scale_O1
