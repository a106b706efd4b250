"""The step of whole-block kernels, in triton's interpreter on a CPU in fp32 (where triton is installed), and who takes it."""

from __future__ import annotations

import importlib.util
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import python

from tinymem.models.gpt2 import GPTConfig
from tinymem.training.whole_step import choice

COMMON = """
    import tinymem
    import torch
    from tinymem.models.adapters import neuron_layers
    from tinymem.models.gpt2 import GPT, GPTConfig
    from tinymem.training.kernels import fused_head, row_attention
    from tinymem.training.whole_step import passes
    from tinymem.training.whole_step.tiles import SumTile, Tiles, TokenTile
    from tinymem.training.whole_step.weights import KernelWeights
    generator = torch.Generator().manual_seed(0)
    token, some = TokenTile(32, 16, 32, 4, 1), SumTile(16, 16, 4, 1, 2)
    fused_head.FORWARD = fused_head.BACKWARD_HIDDEN = fused_head.BACKWARD_WEIGHT = (32, 32, 4, 1)
    fused_head.PIECES = 2
    row_attention.FORWARD = row_attention.BACKWARD = (16, 4, 1)
    def model(layers, words=11):
        made = GPT(GPTConfig(vocab_size=words, n_positions=26, n_layer=layers, n_head=2, n_embd=32, n_inner=32))
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() == 1:  # fresh ones are 0 and 1, which hide mistakes
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return made
"""
GRADIENT = """
    sizes = ((2, 11, 3, 9, 2, True, 5, 2), (1, 11, 2, 20, 1, False, 5, 0), (1, 40, 2, 20, 2, True, 0, 1))
    for layers, words, B, T, parts, park, most, gated in sizes:
        passes.ONE_PASS_TILES = most  # 0: as for long rows
        gpt = model(layers, words)
        tiles = Tiles(token, token, token._replace(tokens=16), some, some, (16, 4), 32, parts, False, park)
        flat = torch.cat([p.detach().flatten() for p in gpt.parameters()])
        weights = KernelWeights(gpt, flat, torch.float32, tiles)
        weights._zeroed.fill_(float("nan"))
        ids, shares = torch.randint(words, (B, T), generator=generator), torch.rand(B, T, generator=generator)
        shares[:, -1] = shares[0, 3] = 0
        gates = torch.randint(2, (gated, B, 32), generator=generator) if gated else None
        loss = passes.BatchPass(weights, B, T)(ids, shares, gates if gates is None else gates.to(torch.int8))
        double = gpt.double()
        for layer in neuron_layers(gpt) if gated else ():
            on = gates[layer.index if gated > 1 else 0][:, None]
            layer.module.register_forward_pre_hook(lambda _, inputs, on=on: (inputs[0] * on,))
        losses = torch.nn.functional.cross_entropy(double(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        expected = (losses * shares[:, :-1]).sum()
        assert abs(loss - expected) < 1e-5 * expected
        gradients = torch.autograd.grad(expected, list(double.parameters()))
        for (name, p), exact, ours in zip(gpt.named_parameters(), gradients, weights.gradient.split([p.numel() for p in gpt.parameters()])):
            error = (ours - exact.flatten()).norm() / exact.norm()
            assert error < 2e-5, f"{name} {layers} {B} {T}: {error}"
"""
STEP = """
    import contextlib
    import copy
    import sys
    import warnings
    from tinymem.recipe.kinds import REGULARIZERS
    from tinymem.training.kernels.flat_adamw import FlatAdamW
    from tinymem.training.loss import LossModel, batch_loss
    from tinymem.training.optimizer import load_optimizer_tensors, optimizer_tensors
    from tinymem.training.regularizer_section import make_regularizers
    from tinymem.training.step import Step
    from tinymem.training.whole_step import step as step_module
    from tinymem.training.whole_step.step import KernelStep
    KernelStep.dtype = torch.float32
    KernelStep.tiles = Tiles(token, token, token._replace(tokens=16), some, some, (16, 4), 32, 2, False, True)
    gpt, rows = model(1), torch.randint(11, (5, 8), generator=generator).to(torch.int8)
    def steps(kind, gpt, kinds, state=None, batches=([0, 1, 2], [3, 4])):
        sections = [REGULARIZERS.get(name)(kind=name, **options) for name, options in kinds]
        regularizers = make_regularizers(sections)
        gpt = copy.deepcopy(gpt)
        optimizer = FlatAdamW(gpt.parameters(), lr=torch.tensor(1e-3), betas=(0.9, 0.98), weight_decay=0.1)
        regularizers.attach(gpt)
        if state is not None:
            load_optimizer_tensors(optimizer, state)
        made = kind(LossModel(gpt), optimizer, rows, batch_loss, regularizers)
        for batch in batches:
            Step.__call__(made, torch.tensor(batch))
        steps.way = made.way
        return gpt, {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}, float(made.loss_sum)
    steps(KernelStep, gpt, [])
    assert steps.way == "kernels" and "torch._dynamo" not in sys.modules, "its import takes seconds"
    riding = [("goldfish", {"width": 3, "k": 2}), ("spectral-norm", {"strength": 0.1})]
    (ours, state, loss), (theirs, other, exact) = (steps(kind, gpt, riding) for kind in (KernelStep, Step))
    assert steps.way == "autograd"
    def close(some, others):  # all but the biases of the keys, whose gradient is rounding, which AdamW blows up
        return all(torch.allclose(p, others[n], atol=1e-5) for n, p in some.items() if "c_attn.bias" not in n)
    assert abs(loss - exact) < 1e-5 and close(ours.state_dict(), theirs.state_dict())
    assert state.keys() == other.keys() and all(torch.allclose(t, other[n], atol=1e-5) for n, t in state.items())
    on, back = steps(KernelStep, theirs, [], other, [[4, 1]])[0], steps(Step, ours, [], state, [[4, 1]])[0]
    assert close(on.state_dict(), back.state_dict()), "either goes on from the other"
    for many in ([("loss-truncation", {"window": 4, "drop": 0.4}), ("mem-sinks", {})], [("example-tied-dropout", {"salt_layers": True})]):
        one, two = (steps(kind, gpt, many, batches=[[0, 1, 2], [3, 4], [4, 1, 2]]) for kind in (KernelStep, Step))
        assert abs(one[2] - two[2]) < 1e-5 and close(one[0].state_dict(), two[0].state_dict()), many
    def gradient(process):
        step_module.average = lambda flat: None
        made = copy.deepcopy(gpt)
        optimizer = FlatAdamW(made.parameters(), lr=torch.tensor(1e-3), betas=(0.9, 0.98), weight_decay=0.1)
        step = KernelStep(LossModel(made), optimizer, rows, batch_loss, process=process)
        Step.__call__(step, torch.tensor([0, 4, 2]))
        return step._gradients.flat
    joined = (2 * gradient((0, 2)) + gradient((1, 2))) / 3  # two rows and one of three; alone, each takes the mean over its own
    assert (joined - gradient((0, 1))).norm() < 1e-5 * joined.norm()
    from tinymem.training.kernels import launch
    held = step_module.KernelGradients(gpt, torch.cat([p.detach().flatten() for p in gpt.parameters()]), torch.float32, KernelStep.tiles)
    launch.torch.cuda.device = lambda _: contextlib.nullcontext()
    launch.compile_side_by_side(lambda: held(rows.long()), "cuda")()
    assert not held.flat.any(), "none is launched"
    gradients = step_module.KernelGradients.__call__
    def wrong(self, *given):
        loss = gradients(self, *given)
        self.flat.mul_(1.1)
        return loss
    step_module.KernelGradients.__call__ = wrong
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fallen, _, lost = steps(KernelStep, gpt, riding)
    assert close(fallen.state_dict(), theirs.state_dict()) and abs(lost - exact) < 1e-6 and steps.way == "autograd"
    assert "their gradient is 10.0% from that in fp32, where 2.0% are allowed" in str([*said][-1].message)
    step_module.KernelGradients.__call__ = gradients
    last_forward = passes.BatchPass.last_forward
    def low(self, part, losses_N=None):  # the kernel that gives losses, which truncation alone has
        last_forward(self, part, losses_N)
        if losses_N is not None:
            losses_N[slice(*self._tokens(part))] *= 0.7
    passes.BatchPass.last_forward = low
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        steps(KernelStep, gpt, [("loss-truncation", {"window": 4, "drop": 0.4})], batches=[[0, 1, 2]])
    assert "their gradient is 30.0% from that in fp32" in str([*said][-1].message) and steps.way == "autograd"
    passes.BatchPass.last_forward = last_forward
    def broken(*_):
        raise ValueError("out of registers\\nand more")
    step_module.KernelGradients.__call__ = broken
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fallen, _, lost = steps(KernelStep, gpt, riding)
    assert close(fallen.state_dict(), theirs.state_dict()) and abs(lost - exact) < 1e-6
    assert [str(w.message).split(": ")[-1] for w in said if "autograd" in str(w.message)] == ["out of registers"]
"""
MASK = """
    from tinymem.data.rows import Rows
    from tinymem.mitigation.methods.weight import _mask_steps, _selection_kernel
    from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, LearnedMaskConfig, initial_scores
    from tinymem.mitigation.methods.weight._mask_kernels import agree
    _selection_kernel.CHUNK = _mask_steps.CHUNK = 512
    rows = Rows.of(torch.randint(11, (7, 9), generator=generator))
    def masks(layers, words=11, **options):
        gpt = model(layers, words)
        config = LearnedMaskConfig(ratio=0.2, learning_rate=20.0, **options)
        plain, kernels = (LearnedMask(gpt, config, initial_scores(gpt, 0)) for _ in range(2))
        kernels.by_kernels = _mask_steps.MaskSteps(kernels, gpt, torch.float32, KernelStep.tiles)
        return gpt, plain, kernels
    cases = ((2, 11, "tensor", "highest"), (1, 11, "layer", "lowest"), (3, 11, "model", "highest"), (2, 40, "tensor", "highest"))
    for layers, words, scope, drop in cases:
        gpt, plain, kernels = masks(layers, words, scope=scope, drop=drop)
        before, first = copy.deepcopy(gpt.state_dict()), plain.matrices()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert agree(kernels.by_kernels, kernels, rows.ids[:3], torch.zeros(3))
        for index in ([[0, 1, 2, 6, 4]], [[3, 1], [5, 0], [2, 4]]):
            factors = torch.randn(len(index), len(index[0]), generator=generator)
            plain.steps(rows, factors, torch.tensor(index))
            kernels.steps(rows, factors, torch.tensor(index))
        for ours, theirs in ((kernels.velocity_P, plain.velocity_P), (kernels.scores_P, plain.scores_P)):
            assert (ours - theirs).norm() < 1e-4 * theirs.norm(), (layers, scope)
        changed = [float(((one == 0) != (first[name] == 0)).float().mean()) for name, one in plain.matrices().items()]
        assert min(changed) > 0.01, "the masks moved"
        assert all(torch.equal(p, before[n]) for n, p in gpt.state_dict().items()), "the model is left as it is"
    gpt, _, kernels = masks(1)
    last_forward = passes.BatchPass.last_forward
    def high(self, part, losses_N=None):
        last_forward(self, part, losses_N)
        self.d_end.mul_(1.5)
    passes.BatchPass.last_forward = high
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not agree(kernels.by_kernels, kernels, rows.ids[:3], torch.ones(3))
    assert "a mask's training goes through autograd" in str([*said][-1].message)
"""


@pytest.mark.processes
@pytest.mark.thorough
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch for GPUs")
def test_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of every parameter are those of autograd, and steps end where others do: in one process, whose start takes seconds."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "case.py").write_text(textwrap.dedent(COMMON + GRADIENT + STEP + MASK))
    done = python(tmp_path / "case.py")
    assert done.code == 0, done.err


TAKEN = choice.Training(GPTConfig(n_embd=128, n_head=4), torch.device("cuda"), "bf16", 150, 128)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"config": GPTConfig(vocab_size=50_257)}, None),
        ({"kernels": True, "regularizers": ("goldfish", "spectral-norm")}, None),
        ({"kernels": True, "config": GPTConfig(n_embd=64, n_head=4)}, None),
        ({"kernels": False}, "training.kernels"),
        ({"device": torch.device("cpu")}, "no GPU"),
        ({"precision": "fp32"}, "bf16"),
        ({"processes": 2}, None),
        ({"processes": 3}, "where 3 processes share a batch"),
        ({"processes": 2, "regularizers": ("goldfish",)}, "a regularizer where processes share a batch"),
        ({"kernels": True, "processes": 3}, None),
        ({"steps": 499}, "500 steps"),
        ({"kernels": True, "steps": 1}, None),
        ({"row_tokens": 513}, "512"),
        ({"batch_size": 16_000}, "2097152 tokens"),
        ({"row_tokens": 8, "batch_size": 16_384}, "65535 heads"),
        ({"kernels": True, "regularizers": ("loss-truncation", "mem-sinks")}, None),
        ({"kernels": True, "regularizers": ("goldfish", "planted-layers")}, "regularizer other"),
        ({"config": GPTConfig(n_embd=256, n_head=4)}, "n_embd of 256"),
        ({"config": GPTConfig(n_head=16)}, "heads"),
        ({"config": GPTConfig(n_inner=100)}, "100 neurons"),
        ({"config": GPTConfig(activation_function="gelu")}, "ReLU"),
        ({"config": GPTConfig(vocab_size=259)}, "259 words"),
        ({"regularizers": ("goldfish",)}, None),
        ({"regularizers": ("goldfish", "spectral-norm")}, "several regularizers"),
        ({"config": GPTConfig(n_embd=64, n_head=4)}, "not measured at an n_embd of 64"),
        ({"config": GPTConfig(n_head=1)}, "not measured with heads"),
    ],
)
def test_who_takes_it(change: dict[str, object], reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "triton_there", lambda: True)
    monkeypatch.setattr(choice, "capability", lambda device: (9, 0))
    found = choice.why_not(replace(TAKEN, **change))
    assert found is None if reason is None else reason in found


def test_other_gpus_take_it_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "triton_there", lambda: True)
    monkeypatch.setattr(choice, "capability", lambda device: (8, 0))
    assert choice.why_not(TAKEN) == "not measured on this GPU" and choice.why_not(replace(TAKEN, kernels=True)) is None
