"""Seconds and memory of the curvature edit: factors, eigendecompositions and an edit of the 4-layer math model, or of Pythia's full size.

    python benchmarks/curvature.py math --device cuda              # aim on an H100: factors and eigenvectors 1 s, an edit 0.05 s
    python benchmarks/curvature.py 2.8b --layers 8 --device cuda   # aim: at most 40 GB; projected to all layers and to 6.9B

Weights and rows are random: neither time nor memory depends on them. Prints a line of JSON: seconds of a pass over the rows, of the
eigenvectors (one moment of each side, times their number), of the first edit, with its factors, and of one whose factors are stored; GiB at
the most, and, where only some layers were taken, what all would take, and those of the other sizes: passes by parameters times tokens,
eigenvectors by the cube of the sides, edits by the multiplications of the matrices. `--profile` prints where the time of an edit goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from full_size import SHAPES, neox

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.rows import Rows
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply, parse_config
from tinymem.mitigation.methods.curvature._common import RHOS
from tinymem.mitigation.methods.curvature._moments import Moments, moments, objectives_of
from tinymem.mitigation.methods.curvature._projections import Projection, projections
from tinymem.mitigation.methods.curvature._spectrum import eigen
from tinymem.models.adapters import vocabulary_of
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.runtime.cost import measured
from tinymem.runtime.device import describe_device, resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import nn  # isort: skip

MATH = GPTConfig(vocab_size=14, n_positions=150, n_layer=4, n_embd=128, n_head=4)


def model_of(shape: str, device: str) -> nn.Module:
    return GPT(MATH, seed=0).to(device).eval() if shape == "math" else neox(shape, device)


def seconds_of(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def sides(found: list[Projection]) -> float:
    """What eigenvectors cost: the cubes of the sides."""
    return float(sum(side**3 for projection in found for side in projection.shape))


def eigen_seconds(found: list[Projection], moments_of: list[Moments], device: str) -> float:
    """Seconds of all eigenvectors, from one moment of each side."""
    by_side = {len(moment): moment for made in moments_of for moment in (made.A_QQ, made.G_PP)}
    seconds = {}
    for _ in range(2):  # the first round warms up
        seconds = {side: seconds_of(lambda moment=moment: eigen(moment), device) for side, moment in by_side.items()}
    return sum(seconds[side] for projection in found for side in projection.shape)


def times(model: nn.Module, rows: Rows, found: list[Projection], given: argparse.Namespace, device: str) -> dict[str, float]:
    """Seconds of the pass, of the eigenvectors, of the first edit, and of one whose factors are stored."""
    labels = objectives_of("sampled", torch.Generator())
    del [moments(model, rows.batches(8)[0], found, labels)][:]  # warms up
    sums: list[Moments] = []
    passing = seconds_of(lambda: sums.extend(moments(model, rows, found, labels)), device)
    eigenvectors = eigen_seconds(found, sums, device)
    sums.clear()
    first, *more = edits(model, rows, given, device)
    return {"pass": passing, "eigenvectors": eigenvectors, "first_edit": first, "edit": sum(more) / len(more)}


def edits(model: nn.Module, rows: Rows, given: argparse.Namespace, device: str) -> Iterator[float]:
    """Seconds of edits at several rhos; the first makes the factors."""
    method, data = UNLEARNERS.get("kfac"), MitigationData(forget=rows.take(rows.prompt[:0]), retain=rows)
    for rho in (RHOS[0], *RHOS[: given.edits]):
        config = parse_config(method, {"rho": rho, "layers": [*range(given.layers)], "sample": len(rows)})
        yield seconds_of(lambda config=config: apply(method, model, data, config), device)
    if given.profile:
        with cProfile.Profile() as profile:
            seconds_of(lambda: apply(method, model, data, config), device)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)


def projected(model: nn.Module, found: list[Projection], took: dict[str, float]) -> dict[str, dict[str, float]]:
    """Seconds of all layers, and of those of the other sizes."""
    every = projections(model)
    share = len(every) / len(found)
    whole = {"pass": took["pass"] * share, "eigenvectors": took["eigenvectors"] * share, "edit": took["edit"] * share}
    return {"all layers": whole, **{f"all of {name}": scaled(model, every, whole, name) for name in ("2.8b", "6.9b")}}


def scaled(model: nn.Module, every: list[Projection], whole: dict[str, float], name: str) -> dict[str, float]:
    with torch.device("meta"):
        other = neox(name, "meta")
    theirs = projections(other)
    parameters = sum(p.numel() for p in other.parameters()) / sum(p.numel() for p in model.parameters())
    products, cubes = (sum(p.shape[0] * p.shape[1] * sum(p.shape) for p in of) for of in (theirs, every)), sides(theirs) / sides(every)
    more = next(products) / next(products)
    return {"pass": whole["pass"] * parameters, "eigenvectors": whole["eigenvectors"] * cubes, "edit": whole["edit"] * more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=["math", *SHAPES])
    parser.add_argument("--layers", type=int, default=0, help="the lowest so many blocks (0: all)")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=80, help="of a row; of the math model 150")
    parser.add_argument("--edits", type=int, default=len(RHOS), help="to time")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = resolve_device(given.device)
    model = model_of(given.shape, device)
    tokens = MATH.n_positions if given.shape == "math" else given.tokens
    ids = torch.randint(vocabulary_of(model), (given.rows, tokens), generator=torch.Generator().manual_seed(0))
    found = projections(model, layers=tuple(range(given.layers)))
    with tempfile.TemporaryDirectory() as cache, measured(torch.device(device)) as cost:
        os.environ["TINYMEM_CACHE"] = cache
        took = times(model, Rows.of(ids).to(device), found, given, device)
    record = {"shape": given.shape, "device": describe_device(device), "rows": given.rows, "projections": len(found)}
    more = projected(model, found, took) if given.layers and given.shape != "math" else {}
    print(json.dumps(record | {"seconds": took, "gib": cost.peak_mb / 1024} | ({"projected": more} if more else {})))


if __name__ == "__main__":
    main()
