"""The GPU kernels, run by triton's interpreter on a CPU (where triton is installed)."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest
import torch
from helpers import python

from tinymem.models.gpt2 import causal_attention
from tinymem.training.kernels.attention import short_rows_by

HEAD = """
    import torch
    import tinymem.training.kernels.fused_head as head
    head.FORWARD = head.BACKWARD_HIDDEN = head.BACKWARD_WEIGHT = (32, 32, 4, 1)
    generator = torch.Generator().manual_seed(0)
    for N, V, D in ((50, 301, 32), (33, 257, 16), (7, 20, 16)):
        x, w = (torch.randn(n, D, generator=generator, requires_grad=True) for n in (N, V))
        t, g = torch.randint(V, (N,), generator=generator), torch.rand(N, generator=generator)
        ours, theirs = head.fused_head_losses(x, w, t), torch.nn.functional.cross_entropy(x @ w.T, t, reduction="none")
        assert torch.allclose(ours, theirs, atol=1e-5)
        for a, b in zip(*(torch.autograd.grad((l * g).sum(), (x, w)) for l in (ours, theirs))):
            assert torch.allclose(a, b, atol=1e-5)
    x, w = torch.zeros(9, 16), 0.1 * torch.randn(37, 16, generator=generator)
    x[:, 0], w[:, 0] = 10, -20  # every logit is about -200
    t, (x, w) = torch.randint(37, (9,), generator=generator), (tensor.requires_grad_() for tensor in (x, w))
    ours, theirs = head.fused_head_losses(x, w, t), torch.nn.functional.cross_entropy(x @ w.T, t, reduction="none")
    for a, b in zip(*(torch.autograd.grad(l.sum(), (x, w)) for l in (ours, theirs))):
        assert torch.allclose(a, b, atol=1e-3), "the gradient is finite where all logits are very low"
"""
ADAMW = """
    import torch
    from tinymem.training.kernels.flat_adamw import FlatAdamW
    from tinymem.training.optimizer import load_optimizer_tensors, optimizer_tensors
    def run(flat, weights, state=None, betas=(0.9, 0.98)):
        ps = [torch.nn.Parameter(w.clone()) for w in weights]
        options = {"betas": betas, "weight_decay": 0.1}
        made = FlatAdamW(ps, lr=torch.tensor(0.01), **options) if flat else torch.optim.AdamW(ps, lr=0.01, **options)
        if state:
            load_optimizer_tensors(made, state)
        generator = torch.Generator().manual_seed(1)
        for _ in range(5):
            for p in ps:
                p.grad = torch.randn(p.shape, generator=generator)
            made.step()
        return [p.detach() for p in ps], {name: t.clone() for name, t in optimizer_tensors(made).items()}
    start = [torch.full(shape, 0.5) for shape in ((7, 300), (5,), (33,))]
    (ours, state), (theirs, other) = run(True, start), run(False, start)
    assert state.keys() == other.keys() and all(torch.allclose(state[n], other[n], atol=1e-6) for n in state)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(run(flat, start, betas=(0.0, 0.98))[0] for flat in (True, False))))
    on, back = run(True, ours, other)[0], run(False, ours, other)[0]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(on, back)), "a state of either goes on in the other"
"""
ATTENTION = """
    import torch
    import tinymem.training.kernels.row_attention as kernel
    from tinymem.models.gpt2 import causal_attention
    generator = torch.Generator().manual_seed(0)
    for B, T, H, K, tile in ((2, 50, 2, 16, 32), (1, 33, 3, 32, 16), (1, 64, 1, 64, 32), (1, 70, 1, 32, 64), (2, 1, 1, 16, 16)):
        kernel.FORWARD = kernel.BACKWARD = kernel.WIDE = (tile, 4, 1)
        qkv = torch.randn(B, T, 3 * H * K, generator=generator, requires_grad=True)
        g = torch.randn(B, T, H * K, generator=generator)
        ours, theirs = kernel.row_attention(qkv, H)[0], causal_attention(qkv, H)
        assert torch.allclose(ours, theirs, atol=1e-5)
        a, b = (torch.autograd.grad((out * g).sum(), qkv)[0] for out in (ours, theirs))
        assert torch.allclose(a, b, atol=1e-5)
    torch.library.opcheck(kernel.row_attention, (qkv, H), test_utils=("test_schema", "test_faketensor"))
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch for GPUs")
@pytest.mark.parametrize("code", [HEAD, ADAMW, ATTENTION], ids=["head", "adamw", "attention"])
def test_kernel(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "case.py").write_text(textwrap.dedent(code))
    done = python(tmp_path / "case.py")
    assert done.code == 0, done.err


def test_attention_without_the_kernel() -> None:
    """Where the kernel does not apply, here on a CPU, attention is the library's."""

    def kernel(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("called")

    qkv_BTE = torch.randn(2, 9, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(short_rows_by(kernel)(qkv_BTE, 2), causal_attention(qkv_BTE, 2))
