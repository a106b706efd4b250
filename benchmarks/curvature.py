"""Seconds and memory of the curvature edit: factors, eigendecompositions and an edit of the 4-layer math model, or of Pythia's full size.

    python benchmarks/curvature.py math --device cuda              # aim on an H100: factors and eigenvectors 1 s, an edit 0.05 s
    python benchmarks/curvature.py 2.8b --layers 8 --device cuda   # aim: at most 40 GB; projected to all layers and to 6.9B

Weights and rows are random: neither time nor memory depends on them. Prints a line of JSON: seconds of the factors (the pass over the rows
and the eigenvectors) and of each edit, GiB at the most, and, where only some layers were taken, what all would take, and those of the
other sizes: passes by parameters times tokens, eigenvectors by the cube of the sides, edits by the multiplications of the matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from full_size import SHAPES, neox
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.rows import Rows
from tinymem.mitigation.method import UNLEARNERS, MitigationData, apply, parse_config
from tinymem.mitigation.methods.curvature._common import RHOS
from tinymem.mitigation.methods.curvature._moments import moments, objectives_of
from tinymem.mitigation.methods.curvature._projections import Projection, projections
from tinymem.mitigation.methods.curvature._spectrum import Spectrum
from tinymem.models.adapters import vocabulary_of
from tinymem.models.gpt2 import GPT, GPTConfig
from tinymem.runtime.cost import measured
from tinymem.runtime.device import describe_device, resolve_device

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


def times(model: nn.Module, rows: Rows, found: list[Projection], layers: tuple[int, ...], device: str) -> dict[str, float]:
    """Seconds of the pass, of the eigenvectors, and of an edit whose factors are stored."""
    pieces: list[float] = []
    sums = moments(model, rows.batches(8)[0], found, objectives_of("sampled", torch.Generator()))  # warms up
    passing = seconds_of(lambda: sums.extend(moments(model, rows, found, objectives_of("sampled", torch.Generator()))), device)
    del sums[: len(found)]
    eigen = seconds_of(lambda: [Spectrum.of(sums.pop(0)) for _ in found], device)
    method, data = UNLEARNERS.get("kfac"), MitigationData(forget=rows.take(rows.prompt[:0]), retain=rows)
    for rho in (RHOS[0], *RHOS):
        config = parse_config(method, {"rho": rho, "layers": [*layers], "sample": len(rows)})
        pieces.append(seconds_of(lambda config=config: apply(method, model, data, config), device))
    return {"pass": passing, "eigenvectors": eigen, "first_edit": pieces[0], "edit": sum(pieces[1:]) / len(RHOS)}


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
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = resolve_device(given.device)
    model, layers = model_of(given.shape, device), tuple(range(given.layers))
    tokens = MATH.n_positions if given.shape == "math" else given.tokens
    ids = torch.randint(vocabulary_of(model), (given.rows, tokens), generator=torch.Generator().manual_seed(0))
    found = projections(model, layers=layers)
    with tempfile.TemporaryDirectory() as cache, measured(torch.device(device)) as cost:
        os.environ["TINYMEM_CACHE"] = cache
        took = times(model, Rows.of(ids).to(device), found, layers, device)
    record = {"shape": given.shape, "device": describe_device(device), "rows": given.rows, "projections": len(found)}
    more = projected(model, found, took) if given.layers and given.shape != "math" else {}
    print(json.dumps(record | {"seconds": took, "gib": cost.peak_mb / 1024} | ({"projected": more} if more else {})))


if __name__ == "__main__":
    main()
