"""The choice of exactly K weights, on the CPU and in the GPU's kernel, against a stable sort; and masks against an earlier, plainer way."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest
import torch
from helpers import python
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from tinymem.errors import UserError
from tinymem.mitigation.methods.pieces import Pieces
from tinymem.mitigation.methods.weight import _learned_mask, _selection
from tinymem.mitigation.methods.weight._learned_mask import LearnedMask, LearnedMaskConfig, initial_scores
from tinymem.models.adapters import mlp_parameters
from tinymem.testing import FAMILIES, tiny_case

KERNEL = """
    import torch
    import tinymem.mitigation.methods.weight._selection_kernel as kernel
    kernel.CHUNK = 64
    generator = torch.Generator().manual_seed(0)
    cases = ((2, 400, 0), (3, 97, 3), (1, 64, 1))  # the last two are full of ties
    for many, (G, N, levels) in [(many, case) for many in (256, 1) for case in cases]:  # 1: counts of long rows, summed between launches
        kernel.MANY = many
        scores, weights = torch.rand(G, N, generator=generator) - 0.5, torch.rand(G, N, generator=generator) + 1
        weights = weights.bfloat16().float()  # the interpreter does not round as a GPU does
        scores = (scores * levels * 2).round() if levels else scores
        for count, lowest, dtype in ((1, False, torch.float32), (N // 3, True, torch.bfloat16), (N - 1, False, torch.float32)):
            values = -scores.abs() if lowest else scores.abs()
            order = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :count]
            assert torch.equal(kernel.masked(weights, scores, count, lowest=lowest, dtype=dtype), weights.scatter(1, order, 0.0).to(dtype))
"""
REACHING = """
    import torch
    import tinymem.mitigation._reaching_kernel as kernel
    from tinymem.mitigation import ranking
    kernel.CHUNK, kernel.BLOCKS = 16, 3
    ranking.use_kernel = lambda parts: True
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.int64):
        for levels in (0, 2):
            parts = [(torch.rand(shape, generator=generator) - 0.5) * (levels or 1e6) for shape in ((9, 11), (70,))]
            parts = [(part.round() if levels else part).to(dtype) for part in parts]
            parts[0] = parts[0].T
            flat = torch.cat([part.flatten() for part in parts])
            for count in (1, 50, len(flat)):
                expected = torch.sort(flat, descending=True, stable=True).indices[:count]
                chosen = torch.cat([mask.flatten() for mask in ranking.highest(parts, count)])
                assert torch.equal(chosen.nonzero().flatten(), expected.sort().values), (dtype, levels, count)
"""
VELOCITY = """
    import torch
    import tinymem.mitigation.methods.weight._velocity_kernel as kernel
    kernel.TILE = (16, 32)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    for inputs, outputs in ((40, 33), (16, 70)):
        for first in (True, False):
            gradient, weight, score, velocity = (draw(inputs, outputs) for _ in range(4))
            score[0, :5] = 0.0
            slope = -gradient * weight * score.sgn()
            expected = 0.9 * velocity + slope + 0.1 * score if first else velocity + slope
            sgd = {"sign": -1.0, "momentum": 0.9, "decay": 0.1, "first": first}
            for lies in (torch.clone, lambda matrix: matrix.T.contiguous().T):
                found = velocity.clone()
                kernel.accelerate(lies(gradient), lies(weight), score, found, **sgd)
                assert torch.allclose(found, expected, atol=1e-6), (inputs, first)
        out = torch.empty(inputs * outputs)
        kernel.transpose(weight, out)
        assert torch.equal(out.view(outputs, inputs), weight.T)
"""
MAXIMA = """
    import torch
    import tinymem.mitigation.methods.weight._maxima_kernel as kernel
    generator = torch.Generator().manual_seed(0)
    gradients, weights = torch.randn(2, 165, generator=generator)
    removed = torch.rand(165, generator=generator) < 0.3
    removed[32:48] = True
    gradients[70] = float("nan")
    for product in (True, False):
        values = (gradients * weights if product else gradients.abs()).nan_to_num(nan=float("inf")).masked_fill(removed, float("-inf"))
        assert torch.equal(kernel.maxima(gradients, weights, removed, 16, product=product), values[:160].view(10, 16).amax(1))
"""
MASK = """
    import torch
    import tinymem.mitigation.methods.weight._learned_mask as mask
    from tinymem.mitigation.methods.weight import _selection
    from tinymem.testing import tiny_case
    for family in ("gpt2", "gpt-neox"):
        model, data = tiny_case(family)
        made = []
        for kernels in (False, True):
            mask.use_kernel = _selection.use_kernel = lambda scores: kernels
            for scope in ("tensor", "layer"):
                config = mask.LearnedMaskConfig(ratio=0.3, scope=scope)
                learned = mask.LearnedMask(model, config, mask.initial_scores(model, 0))
                assert learned.turned == (kernels and family != "gpt2")
                for step in range(2):
                    learned.pieces = mask.Pieces(model, 12, gradients=True, rows=3)
                    learned.step(data.retain, torch.full((8,), -0.3))
                made.append((learned.scores_P, torch.cat([p.flatten() for p in learned.edited().parameters()])))
        for (scores, edit), (plain_scores, plain_edit) in zip(made[2:], made[:2]):
            assert torch.allclose(scores, plain_scores, atol=1e-6) and torch.equal(edit, plain_edit), family
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch for GPUs")
@pytest.mark.parametrize("code", [KERNEL, REACHING, VELOCITY, MAXIMA, MASK], ids=["selection", "reaching", "velocity", "maxima", "mask"])
def test_kernel_by_the_interpreter(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "case.py").write_text(textwrap.dedent(code))
    done = python(tmp_path / "case.py")
    assert done.code == 0, done.err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # quickselect, and torch's own
@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("levels", [0, 3, 1])
def test_exactly_the_first_of_a_stable_sort(dtype: torch.dtype, lowest: bool, levels: int) -> None:
    scores = torch.rand(3, 211, generator=torch.Generator().manual_seed(levels)).to(dtype) - 0.5
    scores = (scores * levels * 2).round() if levels else scores
    for count in (0, 1, 70, 210, 211):
        values = -scores.abs() if lowest else scores.abs()
        order = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :count]
        expected = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)
        assert torch.equal(_selection.extreme(scores, count, lowest=lowest), expected)
        kept = _selection.without_extreme(scores + 2, scores, count, lowest=lowest, dtype=torch.bfloat16)
        assert torch.equal(kept, torch.where(expected, 0.0, scores + 2).bfloat16())


class PlainMask:
    """One matrix at a time: a sorted top-K, a surrogate in the graph, and torch's SGD."""

    def __init__(self, mask: LearnedMask) -> None:
        self.model, self.config = mask.model, mask.config
        self.weights = {n: p.detach() for n, p in mlp_parameters(mask.model, matrices_only=True).items()}
        self.scores = {n: s.clone().requires_grad_() for n, s in mask.split(mask.scores_P).items()}
        options = {"lr": self.config.learning_rate, "momentum": self.config.momentum, "weight_decay": self.config.weight_decay}
        self.optimizer = torch.optim.SGD(list(self.scores.values()), **options)
        self.sign = 1.0 if self.config.drop == "highest" else -1.0

    def dropped(self) -> dict[str, torch.Tensor]:
        chosen = {}
        for name, score in self.scores.items():
            order = (self.sign * score.detach().abs()).flatten().argsort(descending=True, stable=True)
            chosen[name] = torch.zeros(score.numel()).index_fill_(0, order[: int(self.config.ratio * score.numel())], 1).view_as(score)
        return chosen

    def step(self, ids: torch.Tensor) -> None:
        weights = {}
        for name, drop in self.dropped().items():
            surrogate = self.sign * self.scores[name].abs()
            weights[name] = self.weights[name] * (1 - (drop + (surrogate - surrogate.detach())))
        output = functional_call(self.model, weights, (ids,))
        logits = output if isinstance(output, torch.Tensor) else output.logits
        self.optimizer.zero_grad()
        cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward(inputs=list(self.scores.values()))
        self.optimizer.step()


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("drop", ["highest", "lowest"])
def test_masks_equal_those_of_the_plain_way(family: str, drop: str) -> None:
    model, data = tiny_case(family)
    mask = LearnedMask(model, LearnedMaskConfig(ratio=0.3, drop=drop, learning_rate=10.0), initial_scores(model, 0))
    plain = PlainMask(mask)
    start = mask.edited()
    for _ in range(30):
        mask.step(data.retain, torch.full((len(data.retain),), 1 / len(data.retain)))
        plain.step(data.retain.ids)
    edited = mask.edited()
    assert all(torch.equal(edited.get_parameter(name) == 0, chosen == 1) for name, chosen in plain.dropped().items())
    assert any((edited.get_parameter(name) != start.get_parameter(name)).any() for name in plain.scores), "the mask did not move"


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["tensor", "layer", "model"])
def test_parts_and_pieces_change_nothing_but_rounding(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix at a time, and two rows of a batch at a time, as a large model goes through."""
    model, data = tiny_case("gpt-neox")
    masks = []
    for part, rows in ((_learned_mask.PART, None), (1, 2)):
        monkeypatch.setattr(_learned_mask, "PART", part)
        mask = LearnedMask(model, LearnedMaskConfig(ratio=0.3, scope=scope, learning_rate=10.0), initial_scores(model, 0))
        mask.pieces = Pieces(model, 12, gradients=True, rows=rows)
        for _ in range(3):
            mask.step(data.retain, torch.linspace(-0.1, 0.2, len(data.retain)))
        masks.append(mask)
    assert (len(masks[0].parts), len(masks[1].parts)) == {"tensor": (1, 4), "layer": (1, 2), "model": (1, 1)}[scope]
    torch.testing.assert_close(masks[0].scores_P, masks[1].scores_P, atol=1e-6, rtol=1e-5)
    assert not torch.equal(masks[0].scores_P, LearnedMask(model, LearnedMaskConfig(), initial_scores(model, 0)).scores_P)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_passes_point_the_same_way(family: str) -> None:
    """The gradient of the scores in bf16 is that in fp32 but for its rounding; the edit is of the model's own fp32 weights."""
    model, data = tiny_case(family)
    slopes = []
    for precision in ("fp32", "bf16", "tf32"):
        mask = LearnedMask(model, LearnedMaskConfig(ratio=0.3, precision=precision, weight_decay=0.0), initial_scores(model, 0))
        with mask.passes():
            mask.step(data.retain, torch.full((len(data.retain),), 1 / len(data.retain)))
        slopes.append(mask.velocity_P)
        assert {p.dtype for p in mask.edited().parameters()} == {torch.float32}
    assert torch.cosine_similarity(slopes[0], slopes[1], dim=0) > 0.999 and not torch.equal(slopes[0], slopes[1])
    assert torch.equal(slopes[0], slopes[2]), "a CPU has no short products"
    assert torch.backends.cuda.matmul.fp32_precision != "tf32", "the setting was left on"


def test_scores_that_ran_away_are_no_edit() -> None:
    model = tiny_case("gpt")[0]
    mask = LearnedMask(model, LearnedMaskConfig(), initial_scores(model, 0))
    mask.scores_P[5] = float("nan")
    with pytest.raises(UserError, match="lower learning_rate"):
        mask.edited()
