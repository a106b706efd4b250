"""Forward and backward pass of causal attention on a GPU: the kernel for short rows beside the library's, microseconds.

python benchmarks/row_attention.py

Both start from the joint projection of queries, keys and values and end with its gradient, in bf16, as in a training step; calls are
replayed from a CUDA graph. `LONGEST` and `HEAD_WIDTHS` in `tinymem/training/kernels/attention.py` follow this table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import triton

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.models.gpt2 import causal_attention
from tinymem.training.kernels.row_attention import row_attention

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor  # isort: skip

TOKENS = 128 * 150


def microseconds(attend: Callable[[Tensor], Tensor], qkv_BTE: Tensor, d_out_BTD: Tensor) -> float:
    def both() -> None:
        leaf = qkv_BTE.detach().requires_grad_()
        torch.autograd.grad(attend(leaf), leaf, d_out_BTD)

    return 1e3 * triton.testing.do_bench_cudagraph(both, rep=10)


def main() -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {TOKENS} tokens, 128 wide")
    print(f"{'row':>5}{'head':>6}{'library':>9}{'kernel':>9}{'times':>7}")
    for T in (64, 100, 128, 150, 200, 256, 384, 512):
        for K in (16, 32, 64, 128):
            H = 128 // K
            B = TOKENS // T
            qkv_BTE = torch.randn(B, T, 3 * H * K, device="cuda", dtype=torch.bfloat16)
            d_out_BTD = torch.randn(B, T, H * K, device="cuda", dtype=torch.bfloat16)
            library = microseconds(lambda x, H=H: causal_attention(x, H), qkv_BTE, d_out_BTD)
            kernel = microseconds(lambda x, H=H: row_attention(x, H)[0], qkv_BTE, d_out_BTD)
            print(f"{T:5}{K:6}{library:9.1f}{kernel:9.1f}{library / kernel:7.2f}", flush=True)


if __name__ == "__main__":
    main()
