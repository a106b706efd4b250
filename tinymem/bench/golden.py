"""Comparison of the losses of graphs and compiled graphs with those of eager steps, on a GPU: speed must change no result.

`python -m tinymem.bench.golden`. On CPUs the test suite compares what torch.compile traces.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from tinymem.bench.sizes import CASES, TOKENS, Case
from tinymem.bench.train import our_parts, regularizer_names
from tinymem.models.gpt2 import causal_attention
from tinymem.recipe.sizes import GPT2_VOCABULARY
from tinymem.training.kernels.attention import HEAD_WIDTHS
from tinymem.training.precision import Precision
from tinymem.training.step import GraphedStep, Step

STEPS, ROWS, TOLERANCE = 100, 32, 1e-4


def losses(case: Case, way: str, regularizer: str = "", *, precision: Precision = "fp32", steps: int = STEPS, seed: int = 0) -> list[float]:
    """Losses of each step of an `eager`, `graph`, `compiled` or `kernels` run on rows that can be learned."""
    rows_NT = (torch.arange(8 * ROWS)[:, None] * 7 % 11 + torch.arange(TOKENS) % 3) % case.vocabulary
    kind = _kinds()[way]
    made = our_parts(case, rows_NT, torch.device("cuda"), kind, regularizer, precision, seed=seed)
    if isinstance(made, GraphedStep) and way == "compiled":
        made.compiling, made.batch_size = True, ROWS
    found = []
    for i in range(steps):
        made.loss_sum.zero_()
        size = ROWS // 2 if i % 8 == 7 else ROWS  # the last batch of an epoch is smaller
        made(torch.arange(i % 8 * ROWS, i % 8 * ROWS + size, device="cuda"))
        found.append(float(made.loss_sum))
    return found


def _kinds() -> dict[str, type[Step]]:
    from tinymem.training.whole_step.step import KernelStep

    return {"eager": Step, "graph": GraphedStep, "compiled": GraphedStep, "kernels": KernelStep}


def compare(case: Case, way: str, regularizer: str = "") -> float:
    """Largest difference of a step's loss from the eager one, in fp32."""
    ours, eager = (losses(case, w, regularizer) for w in (way, "eager"))
    return max(abs(a - b) for a, b in zip(ours, eager, strict=True))


def head_error(rows: int = 2000, vocabulary: int = GPT2_VOCABULARY, width: int = 128) -> tuple[float, float, float]:
    """Relative errors of the fused head: losses, gradient of the hidden states, gradient of the weight, from bf16 against float64."""
    from tinymem.training.kernels.fused_head import fused_head_losses

    generator = torch.Generator("cuda").manual_seed(0)
    hidden_ND = torch.randn(rows, width, device="cuda", generator=generator).bfloat16().requires_grad_()
    weight_VD = (0.1 * torch.randn(vocabulary, width, device="cuda", generator=generator)).bfloat16().float().requires_grad_()
    targets_N = torch.randint(vocabulary, (rows,), device="cuda", generator=generator)
    factors_N = torch.rand(rows, device="cuda", generator=generator)
    ours_N = fused_head_losses(hidden_ND, weight_VD, targets_N)
    ours = (ours_N, *torch.autograd.grad((ours_N * factors_N).sum(), (hidden_ND, weight_VD)))
    exact_N = torch.nn.functional.cross_entropy(hidden_ND.double() @ weight_VD.double().T, targets_N, reduction="none")
    exact = (exact_N, *torch.autograd.grad((exact_N * factors_N).sum(), (hidden_ND, weight_VD)))
    loss, hidden, weight = map(_relative, ours, exact)
    return loss, hidden, weight


def attention_error(rows: int = 16, width: int = 32) -> tuple[float, float]:
    """Relative errors of the attention kernel: outputs and gradient, from bf16 against float64."""
    from tinymem.training.kernels.row_attention import row_attention

    heads, generator = 4, torch.Generator("cuda").manual_seed(0)
    qkv_BTE = torch.randn(rows, TOKENS, 3 * heads * width, device="cuda", generator=generator).bfloat16().requires_grad_()
    factors_BTD = torch.randn(rows, TOKENS, heads * width, device="cuda", generator=generator)
    ours, exact = row_attention(qkv_BTE, heads)[0], causal_attention(qkv_BTE.double(), heads)
    gradients = (torch.autograd.grad((out * factors_BTD).sum(), qkv_BTE)[0] for out in (ours, exact))
    return _relative(ours, exact), _relative(*gradients)


def _relative(ours: Tensor, exact: Tensor) -> float:
    return float((ours.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm())


def main() -> None:
    """Print every comparison; exit code 1 if one is off."""
    off = False
    for name in ("", *regularizer_names()):
        for way in ("graph", "compiled") if not name else ("graph",):
            difference = compare(CASES[0], way, name)
            off |= not difference < TOLERANCE
            print(f"{way:<10}{name or 'plain':<24}{difference:.1e}", flush=True)
    errors = head_error()
    off |= not max(errors) < 1e-2
    print("fused head: relative errors of losses, hidden gradient, weight gradient:", *(f"{e:.1e}" for e in errors), flush=True)
    for width in HEAD_WIDTHS:
        output, gradient = attention_error(width=width)
        off |= not max(output, gradient) < 1e-2
        print(f"attention, heads of {width}: relative errors of outputs, gradient: {output:.1e} {gradient:.1e}", flush=True)
    sys.exit(int(off))


if __name__ == "__main__":
    main()
