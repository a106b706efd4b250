"""Seconds of a part of Zero, IG and SOU on models of Pythia's full size, whose whole would take hours, and of the whole by projection.

    python benchmarks/full_size_parts.py 2.8b --forget pile_bs0-100-dedup.pt
    python benchmarks/full_size_parts.py 14m --forget pile_bs0-100-dedup.pt --rows 33 --whole    # the projection beside the whole

Models are those of `full_size.py`: random weights in bf16. A part has the cost of each of its pieces in proportion:

- Zero: every 64th neuron of every layer, on the first rows. Each pair of a row and a neuron costs a pass from its layer up.
- IG: every 8th layer from the fifth on (of 6 layers: the second and the fifth), on the first rows. A layer's cost falls with its height.
- SOU: gradients of all weights, which one pass gives, and sums and inverses of a 64th of each matrix and bias (of small ones half), and
  of a quarter of that: what does not grow with the part is told from what does.

A part has to fill the GPU as the whole does: Zero takes neurons of a layer times rows at once, up to some 260 pairs.

A line of JSON has the part's seconds, those projected on all neurons or weights of these rows, and on all rows of the file. `--whole` adds
the seconds of the method's own scores on these rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from full_size import PROMPT, SHAPES, neox

from tinymem.data.rows import Rows
from tinymem.mitigation.method import UNLEARNERS, MitigationData
from tinymem.mitigation.methods.neuron import ig, zero
from tinymem.mitigation.methods.neuron._common import cropped, frozen
from tinymem.mitigation.methods.weight import sou
from tinymem.mitigation.methods.weight._row_gradients import row_gradients
from tinymem.models.adapters import mlp_parameters, neuron_layers
from tinymem.runtime.device import describe_device, resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)
from torch import Tensor, nn  # isort: skip

LAYERS, SHARE, LEAST = 8, 64, 500_000
"""One of so many layers, and of neurons or weights, is in a part; of a matrix at least so many weights, or half of them."""

ENOUGH, TIMES = 2.0, 3
"""Work is timed for so many seconds, and so often at least."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """Seconds of a part, and of what it stands for: all neurons or weights on the same rows, and all rows of the file."""

    part: float
    these_rows: float
    all_rows: float


@dataclass(frozen=True)
class Part:
    """What is timed of a method, after a warm-up, and what follows from the seconds of each piece of it."""

    works: list[Work]
    project: Callable[[list[float]], Timed]


def seconds(works: list[Work]) -> list[float]:
    """Wall-clock seconds of each of some calls, a GPU's work included: the least of several, since whatever else the machine does adds.

    The calls take turns, so that a machine that slows down slows all of them.
    """
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    spent: list[list[float]] = []
    while len(spent) < TIMES or sum(map(sum, spent)) < ENOUGH * len(works):
        spent.append([])
        for work in works:
            started = time.perf_counter()
            work()
            wait()
            spent[-1].append(time.perf_counter() - started)
    return [min(times) for times in zip(*spent, strict=True)]


@torch.no_grad()
def zero_part(model: nn.Module, rows: Rows, layers: int | None = None) -> None:
    """Zero's losses without one of `SHARE` neurons of each layer, or of the first so many layers."""
    rows = cropped(rows)
    losses_without = zero._of_any(model, rows)
    for layer in neuron_layers(model)[:layers]:
        neurons = torch.arange(0, layer.neurons, SHARE, device=rows.ids.device)
        pairs_N2 = torch.cartesian_prod(torch.arange(len(rows), device=rows.ids.device), neurons)
        for pairs_n2 in pairs_N2.split(zero.copies_for(model, rows)):
            losses_without(layer, *pairs_n2.unbind(1))


def part_of_zero(model: nn.Module, rows: Rows, total: int) -> Part:
    """Zero on one of `SHARE` neurons."""
    zero_part(model, rows, 1)  # warm up
    return Part([lambda: zero_part(model, rows)], lambda spent: Timed(spent[0], spent[0] * SHARE, spent[0] * SHARE * total / len(rows)))


def part_of_ig(model: nn.Module, rows: Rows, total: int) -> Part:
    """IG in one of `LAYERS` layers."""
    layers, config, rows = neuron_layers(model), ig.IGConfig(), cropped(rows)
    step = min(LAYERS, max(1, len(layers) // 2))
    chosen = layers[step // 2 :: step]
    points, times = ig.alphas(config, rows.ids.device), len(layers) / len(chosen)

    def attribute(points_m: Tensor) -> None:
        with frozen(model):
            passes = ig.passes_of(model, rows)
            for layer in chosen:
                passes.mean_gradients(layer, points_m, config.copies)

    attribute(points[:1])  # warm up
    return Part([lambda: attribute(points)], lambda spent: Timed(spent[0], spent[0] * times, spent[0] * times * total / len(rows)))


def part_of_sou(model: nn.Module, rows: Rows, total: int) -> Part:
    """SOU's gradients whole, with sums and inverses of one of `SHARE` blocks, and of a quarter of those; as many rows count as SOU draws.

    What a part costs is a line: gradients and launches cost the same whatever the share, sums and inverses grow with it.
    """
    config, weights = sou.SOUConfig(), {name: p.numel() for name, p in mlp_parameters(model).items()}
    sizes = [{name: _part(numel, config.block, quarter) for name, numel in weights.items()} for quarter in (4, 1)]
    shares = [sum(size.values()) / sum(weights.values()) for size in sizes]

    def project(spent: list[float]) -> Timed:
        sums, inverses = through(shares, spent[::2]), through(shares, spent[1::2])
        return Timed(sum(spent[2:]), sums + inverses, sums * min(total, config.gradients) / len(rows) + inverses)

    return Part([work for size in sizes for work in sums_and_inverses(model, rows, size)], project)


def sums_and_inverses(model: nn.Module, rows: Rows, sizes: dict[str, int]) -> list[Work]:
    """SOU's passes with sums over so many weights of each tensor, and the inverses of their blocks."""
    config = sou.SOUConfig()
    outer = {
        name: torch.zeros(size // config.block, config.block, config.block, dtype=torch.float64, device=rows.ids.device)
        for name, size in sizes.items()
    }

    def add() -> None:
        for batch in rows.batches(config.batch_size):
            for name, gradient_BP in row_gradients(model, batch, config.over):
                blocks_NBK = sou.in_blocks(gradient_BP[:, : sizes[name]], config.block).transpose(0, 1).double()
                outer[name].baddbmm_(blocks_NBK.transpose(1, 2), blocks_NBK)

    def invert() -> None:
        for part in outer.values():
            sou.inverse_diagonal(part, len(rows), config.damp)

    add()  # warm up
    invert()
    return [add, invert]


def through(shares: list[float], spent: list[float]) -> float:
    """Seconds at a share of 1, on the line through two shares' seconds.

    >>> through([0.25, 0.5], [2.0, 3.0])
    5.0
    """
    slope = (spent[1] - spent[0]) / (shares[1] - shares[0])
    return spent[1] + max(0.0, slope) * (1 - shares[1])


def _part(numel: int, block: int, quarter: int) -> int:
    """Weights of a tensor that are in SOU's part, or in a quarter of it, whole blocks."""
    return max(1, max(numel // SHARE, min(numel // 2, LEAST)) // quarter // block) * block


PARTS: dict[str, Callable[[nn.Module, Rows, int], Part]] = {"zero": part_of_zero, "ig": part_of_ig, "sou": part_of_sou}


def whole(name: str, model: nn.Module, rows: Rows) -> Work:
    """A method's own scores on the rows, after a run on the first of them."""
    method = UNLEARNERS.get(name)
    data = [
        MitigationData(forget=part, retain=part) for part in (rows.take(torch.zeros(1, dtype=torch.long, device=rows.ids.device)), rows)
    ]
    method.function(model, data[0], method.config())
    return lambda: method.function(model, data[1], method.config())


def record(name: str, model: nn.Module, rows: Rows, total: int, *, with_whole: bool) -> dict[str, object]:
    """A method's line."""
    try:
        part = PARTS[name](model, rows, total)
        spent = seconds([*part.works, *([whole(name, model, rows)] if with_whole else [])])
        found = part.project(spent[: len(part.works)])
        line = {"part_seconds": found.part, "projected_seconds": found.these_rows, "projected_seconds_all_rows": found.all_rows}
        line |= {"whole_seconds": spent[-1]} if with_whole else {}
        return {"status": "ok"} | {key: round(value, 3) for key, value in line.items()}
    except Exception as error:  # one method out of memory leaves the others
        return {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("methods", nargs="*", default=list(PARTS))
    parser.add_argument("--forget", type=Path, required=True, help="rows to forget, a tensor [N, 80] of token ids (.pt)")
    parser.add_argument("--rows", type=int, default=1, help="rows that Zero and IG take; SOU takes 16 times as many")
    parser.add_argument("--whole", action="store_true", help="also time the methods' own scores on the same rows")
    parser.add_argument("--device", default="auto")
    given = parser.parse_intermixed_args()
    device = resolve_device(given.device)
    forget, model = torch.load(given.forget, weights_only=True), neox(given.shape, device)
    for name in given.methods:
        rows = Rows.of(forget[: given.rows * (16 if name == "sou" else 1)], PROMPT).to(device)
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        line = {"shape": given.shape, "method": name, "device": describe_device(device), "rows": len(rows), "of": len(forget)}
        line |= record(name, model, rows, len(forget), with_whole=given.whole)
        peak = {} if device == "cpu" else {"gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}
        print(json.dumps(line | peak), flush=True)


if __name__ == "__main__":
    main()
