"""The step of whole-block kernels on a GPU: whether its gradients are right, and what each kernel takes.

python benchmarks/whole_step.py check     gradients against float64, beside PyTorch's bf16, over sizes of batch, row and model
python benchmarks/whole_step.py repeat    the same gradient 200 times with streams in a graph: a race would show
python benchmarks/whole_step.py kernels   microseconds of each kernel alone, and of the whole step
python benchmarks/whole_step.py sweep     of the whole step with other tiles
python benchmarks/whole_step.py golden    losses over 300 steps beside autograd's in bf16, as distances from those in fp32, over models
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.training.whole_step.passes import BatchPass
from tinymem.training.whole_step.tiles import SumTile, Tiles, TokenTile
from tinymem.training.whole_step.weights import KernelWeights

import torch  # isort: skip (after tinymem, which sets its threads)
import torch.nn.functional as F  # isort: skip
from torch import Tensor  # isort: skip

LEAST_SEEDS = 5
"""Models of `golden`: 2^-5 is the first power that is below its 5 %."""


@dataclass(frozen=True)
class Size:
    """A model and a batch."""

    layers: int = 4
    rows: int = 128
    tokens: int = 150
    width: int = 128
    heads: int = 4
    words: int = 14
    seed: int = 1

    def model(self) -> GPT:
        config = GPTConfig(vocab_size=self.words, n_positions=self.tokens + 3, n_layer=self.layers, n_head=self.heads, n_embd=self.width)
        model, generator = GPT(config, seed=self.seed), torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.cuda()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Tokens, and their shares of the loss."""
        generator = torch.Generator().manual_seed(2)
        ids_BT = torch.randint(self.words, (self.rows, self.tokens), generator=generator)
        shares_BT = (torch.rand(self.rows, self.tokens, generator=generator) > 0.1).float()
        shares_BT[:, -1] = 0
        return ids_BT.cuda(), (shares_BT / shares_BT.sum()).cuda()


def passes(size: Size, tiles: Tiles) -> tuple[GPT, KernelWeights, BatchPass]:
    model = size.model()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    weights = KernelWeights(model, flat, torch.bfloat16, tiles)
    made = BatchPass(weights, size.rows, size.tokens)
    for value in vars(made).values():
        for tensor in value if isinstance(value, list) else [value]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.fill_(float("nan"))
    return model, weights, made


def reference(model: GPT, ids_BT: Tensor, shares_BT: Tensor) -> list[Tensor]:
    losses_N = F.cross_entropy(model(ids_BT)[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
    return list(torch.autograd.grad((losses_N * shares_BT[:, :-1].flatten()).sum(), list(model.parameters())))


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def exact_gradient(model: GPT, ids_BT: Tensor, shares_BT: Tensor) -> list[Tensor]:
    """In float64, some rows at a time."""
    import copy

    double, found = copy.deepcopy(model).double(), []
    for rows in torch.arange(len(ids_BT), device="cuda").split(16):
        part = reference(double, ids_BT[rows], shares_BT[rows].double())
        found = part if not found else [a + b for a, b in zip(found, part, strict=True)]
    return found


def errors(size: Size, tiles: Tiles) -> dict[str, Tensor]:
    """Errors of each parameter's gradient and of all, by name: the kernels' and PyTorch's in bf16."""
    model, weights, made = passes(size, tiles)
    ids_BT, shares_BT = size.batch()
    made(ids_BT, shares_BT)
    torch.cuda.synchronize()
    exact = exact_gradient(model, ids_BT, shares_BT)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        theirs = reference(model, ids_BT, shares_BT)
    ours = [part.view_as(g) for part, g in zip(weights.gradient.split([g.numel() for g in exact]), exact, strict=True)]
    names = [name.removeprefix("transformer.") for name, _ in model.named_parameters()]
    found = {n: torch.tensor([error(a, g), error(b, g)]) for n, a, b, g in zip(names, ours, theirs, exact, strict=True)}
    joined = [torch.cat([t.flatten() for t in some]) for some in (ours, theirs, exact)]
    return found | {"all": torch.tensor([error(joined[0], joined[2]), error(joined[1], joined[2])])}


def check(size: Size, tiles: Tiles, seeds: tuple[int, ...] = (1, 2, 3)) -> bool:
    """Print errors of all gradients; whether no parameter's is worse than 1.5 times PyTorch's, and the whole no worse, over some models.

    Most of either error is that of weights rounded to bf16, which is the same for all tokens: one model says little.
    """
    each = [errors(replace(size, seed=seed), tiles) for seed in seeds]
    mean = {name: torch.stack([found[name] for found in each]).mean(0) for name in each[0]}
    # A third of the joint projection's biases, the keys', have no gradient but rounding.
    worse = {n: e for n, e in mean.items() if not e[0] <= max((3 if n.endswith("c_attn.bias") else 1.5) * e[1], 2e-3)}
    right = not worse and bool(mean["all"][0] <= 1.1 * mean["all"][1])
    ratio = torch.stack([e[0] / e[1] for e in mean.values()])
    print(
        f"{'right' if right else 'WRONG'} {size} parts {tiles.parts}: all {mean['all'][0]:.2e} (PyTorch {mean['all'][1]:.2e}); "
        f"times PyTorch's: median {ratio.median():.2f}, most {ratio.max():.2f} ({list(mean)[int(ratio.argmax())]})",
        *(f"\n    {name:<24}{e[0]:9.1e} {e[1]:9.1e}" for name, e in list(worse.items())[:30]),
        flush=True,
    )
    return right


def graph_of(call: Callable[[], object], times: int = 1) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(times):
            call()
    return graph


def microseconds(call: Callable[[], object], times: int = 1) -> float:
    """Of one call, replayed in a graph of so many."""
    graph = graph_of(call, times)
    for _ in range(5):
        graph.replay()
    found = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(10):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(1e3 * begin.elapsed_time(end) / 10 / times)
    return sorted(found)[2]


def kernels(size: Size, tiles: Tiles) -> None:
    """Print microseconds of each kernel over the whole batch, and of the pass over all of it."""
    _, weights, made = passes(size, tiles._replace(parts=1))
    ids_BT, shares_BT = size.batch()
    made(ids_BT, shares_BT)
    layered = ("attention", "block_forward", "block_backward", "block_weight_gradients", "attention_backward", "attention_weight_gradients")
    layer = dict.fromkeys(layered, 0)
    for name in ("fold", "unfold"):
        print(f"    {name:<28}{microseconds(getattr(weights, name), 20):8.1f} us", flush=True)
    for name in ("first_forward", "last_forward", "first_backward", *layered):
        arguments = ((layer[name],) if name in layer else ()) + ((0, size.rows),)
        print(f"    {name:<28}{microseconds(lambda n=name, a=arguments: getattr(made, n)(*a), 20):8.1f} us", flush=True)


def attention(tiles: Tiles) -> None:
    """Print microseconds of attention's gradient over some 19,200 tokens in one pass and in two, by the length of rows."""
    from tinymem.training.whole_step import passes as module

    for tokens in (64, 128, 150, 200, 256, 320):
        _, _, made = passes(Size(layers=1, rows=19_200 // tokens, tokens=tokens), tiles._replace(parts=1))
        made(*Size(rows=19_200 // tokens, tokens=tokens).batch())
        times = []
        for module.ONE_PASS_TILES in (5, 0):
            times.append(microseconds(lambda m=made: m.attention_backward(0, (0, m.rows)), 20))
        print(f"    attention_backward, rows of {tokens}: one pass {times[0]:.1f} us, two {times[1]:.1f} us", flush=True)


def whole(size: Size, tiles: Tiles) -> float:
    _, _, made = passes(size, tiles)
    batch = size.batch()
    return microseconds(lambda: made(*batch))


def repeat(size: Size, tiles: Tiles, times: int) -> bool:
    """Whether the gradient is the same every time, up to the order of its sums."""
    _, weights, made = passes(size, tiles)
    batch = size.batch()
    graph, worst, first = graph_of(lambda: made(*batch)), 0.0, None
    for _ in range(times):
        graph.replay()
        gradient = weights.gradient.clone()
        first = gradient if first is None else first
        worst = max(worst, error(gradient, first)) if bool(gradient.isfinite().all()) else float("inf")
    print(f"{size} parts {tiles.parts}: {times} times, differing by {worst:.1e} at most", flush=True)
    return worst < 1e-5


def golden(layers: int, seeds: int, steps: int = 300) -> bool:
    """Whether losses by kernels are as near to those in fp32 as autograd's in bf16 are.

    bf16's own spread is that over initializations, and over two ways of rounding: autograd with the attention of training, and with the
    library's. A model's distance is the mean over steps of the difference of its loss from that in fp32; the kernels' mean over models
    must not be above the larger of the two ways' means by more than chance (the signs of the models' differences, one-sided, 5 %).
    """
    from tinymem.bench.golden import losses
    from tinymem.bench.train import the_case

    case, rows = the_case(f"math-{layers}"), []
    for seed in range(seeds):
        exact = torch.tensor(losses(case, "graph", steps=steps, seed=seed))
        found = [torch.tensor(losses(case, way, precision="bf16", steps=steps, seed=seed)) for way in ("graph", "kernels")]
        with mock.patch("tinymem.training.loss.use_row_attention"):
            found.insert(1, torch.tensor(losses(case, "graph", precision="bf16", steps=steps, seed=seed)))
        rows.append(torch.stack([(one - exact).abs().mean() for one in found]))
        late = [f"{float((one - exact)[50:].abs().mean()):.1e}" for one in found]
        print(
            f"    seed {seed}: autograd's bf16, with the library's attention, kernels:",
            *(f"{o:.2e}" for o in rows[-1]),
            "from step 51:",
            *late,
            flush=True,
        )
    distances = torch.stack(rows)
    mean = distances.mean(0)
    nearest = distances[:, 2] - distances[:, int(mean[:2].argmax())]
    signs = 1 - 2 * torch.cartesian_prod(*[torch.arange(2)] * seeds)
    chance = float(((signs * nearest).mean(1) >= nearest.mean() - 1e-12).float().mean())
    print(
        "    means:",
        *(f"{m:.2e} ({d.min():.1e} to {d.max():.1e})" for m, d in zip(mean, distances.T, strict=True)),
        f"p {chance:.3f}",
        flush=True,
    )
    return bool(mean[2] <= mean[:2].max()) or chance > 0.05


CHECKS = (
    (Size(layers=2, rows=8, tokens=50), {"parts": 1}),
    (Size(), {"parts": 1}),
    (Size(), {"parts": 4}),
    (Size(rows=37), {"parts": 4}),
    (Size(layers=1, rows=3, tokens=150), {"parts": 4}),
    (Size(layers=2, rows=33, tokens=64), {"parts": 2}),
    (Size(layers=2, rows=21, tokens=161), {"parts": 2}),
    (Size(layers=2, rows=13, tokens=512), {"parts": 4}),
    (Size(layers=2, rows=65, width=64), {"parts": 4}),
    (Size(layers=2, rows=30, heads=2), {"parts": 4}),
    (Size(layers=2, rows=21, words=50_257), {"parts": 4}),
)
BASE = Tiles()
SWEEP: dict[str, Tiles] = {
    "base": BASE,
    "descriptors": BASE._replace(descriptors=True),
    **{f"parts {n}": BASE._replace(parts=n) for n in (1, 2, 3, 5, 6)},
    "no park": BASE._replace(park=False),
    **{f"attention {t}": BASE._replace(attention=t) for t in ((64, 8), (64, 2))},
    **{f"forward {t}": BASE._replace(forward=TokenTile(*t)) for t in ((64, 32, 128, 4, 2), (64, 32, 64, 4, 4), (64, 64, 128, 8, 3))},
    **{f"backward {t}": BASE._replace(backward=TokenTile(*t)) for t in ((64, 64, 64, 4, 4), (64, 64, 128, 4, 3), (64, 32, 64, 4, 4))},
    **{
        f"block weights {t}": BASE._replace(block_weights=SumTile(*t))
        for t in ((64, 64, 4, 3, 20), (64, 64, 4, 3, 28), (64, 32, 4, 4, 24), (32, 64, 4, 3, 16), (128, 64, 8, 3, 32))
    },
    **{f"attention weights {t}": BASE._replace(attention_weights=SumTile(*t)) for t in ((128, 64, 4, 3, 48), (64, 128, 4, 3, 32))},
}


def tried(label: str, call: Callable[[], object]) -> object:
    """The result of a call, or None with its error printed: one that fails must not hide the rest."""
    started = time.perf_counter()
    try:
        return call()
    except Exception:
        print(f"FAILED {label}", traceback.format_exc()[-3000:], flush=True)
        return None
    finally:
        if (took := time.perf_counter() - started) > 5:
            print(f"  ({label}: {took:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "repeat", "kernels", "sweep", "golden"), nargs="+")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10, help="models of `golden`")
    given = parser.parse_args()
    if "golden" in given.what and given.seeds < LEAST_SEEDS:
        raise SystemExit(f"expected --seeds of at least {LEAST_SEEDS}, got {given.seeds}: the signs of fewer models cannot reach 5 %")
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}", flush=True)
    size, right = Size(layers=given.layers), True
    for what in given.what:
        if what == "check":
            for case, options in CHECKS:
                right &= bool(tried(f"check {case}", lambda c=case, o=options: check(c, BASE._replace(**o))))
        elif what == "repeat":
            right &= bool(tried("repeat", lambda: repeat(size, BASE, given.times)))
        elif what == "golden":
            right &= bool(tried("golden", lambda: golden(given.layers, given.seeds)))
        elif what == "kernels":
            tried("kernels", lambda: kernels(size, BASE))
            tried("attention", lambda: attention(BASE))
        else:
            for label, tiles in SWEEP.items():
                took = tried(label, lambda t=tiles: whole(size, t))
                print(f"    {label:<40}{took or float('nan'):8.1f} us", flush=True)
    sys.exit(int(not right))


if __name__ == "__main__":
    main()
