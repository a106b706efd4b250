"""`tinymem bench train`: cost of a training step in the style of the published code, compiled, and in TinyMem.

Also `python -m tinymem.bench.train --device cuda`: it needs torch and numpy, and transformers for the first two ways.

    reference   transformers GPT-2, fp32, eager, DataLoader, `.item()` after each step
    compiled    transformers GPT-2, bf16 autocast, torch.compile, DataLoader, `.item()`
    graph       TinyMem's step without torch.compile: on GPUs bf16 in one CUDA graph, on CPUs fp32
    autograd    the same through torch.compile (GPUs), as with `training.kernels: false`
    ours        the step that a long run takes: of whole-block kernels where they are measured, else as `autograd`
    kernels     the step of `training.kernels: true`: of whole-block kernels wherever there are some, else as `autograd`
    ours+X      with regularizer X
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tinymem.bench.sizes import BATCH, CASES, TOKENS, Case
from tinymem.errors import UserError, complain, did_you_mean
from tinymem.runtime.device import resolve_device
from tinymem.training.precision import resolve_precision
from tinymem.training.whole_step.choice import Training, kernel_step, why_not

if TYPE_CHECKING:
    from tinymem.training.precision import Precision
    from tinymem.training.regularizer import Regularizers
    from tinymem.training.step import Step

DEFAULT_CASES = ("math-2", "math-4", "math-16", "language-4")


def regularizer_names() -> list[str]:
    """Names of the registered regularizers; none where pydantic, of which their options are made, is not installed."""
    try:
        from tinymem.recipe.kinds import REGULARIZERS
    except ModuleNotFoundError:
        return []
    return REGULARIZERS.names()


def all_ways() -> list[str]:
    """Every way of training that can be timed."""
    own = ("graph", "autograd", "ours", "kernels")
    return ["reference", "compiled", *own, *(f"{way}+{name}" for way in own for name in regularizer_names())]


@dataclass(frozen=True)
class Timing:
    """One line of the table: a size, a way, and its measurements."""

    case: str
    way: str
    milliseconds: float
    tokens_per_second: float
    tflops: float
    start_seconds: float
    gigabytes: float | None
    path: str
    rows: int
    """Rows of a batch."""


def bench(
    cases: list[str],
    ways: list[str],
    *,
    device: str = "cpu",
    steps: int = 50,
    rows: int = BATCH,
    say: Callable[[str], None] = lambda _: None,
) -> list[Timing]:
    """Time each way on each size; `say` is called with each line as soon as it is measured.

    Raises:
        UserError: no step or no row, or an unknown size or way.
    """
    if min(steps, rows) < 1:
        raise UserError(f"expected at least 1 step and 1 row, got {steps} and {rows}")
    chosen = [the_case(name) for name in cases]
    for way in ways:
        if way not in all_ways():
            raise UserError(f"unknown way '{way}'; {did_you_mean(way, all_ways())}")
    timings = []
    say(HEADER)
    for case in chosen:
        for way in ways:
            timings.append(_time(case, way, torch.device(device), steps, rows))
            say(line(timings[-1]))
    return timings


HEADER = f"{'case':<12}{'way':<30}{'ms/step':>9}{'tokens/s':>13}{'TFLOP/s':>9}{'start s':>9}{'GB':>7}  path"


def json_lines(timings: list[Timing]) -> str:
    """Timings as `bench hours` reads them: a line of JSON each."""
    return "\n".join(json.dumps(asdict(timing)) for timing in timings)


def line(t: Timing) -> str:
    """A timing as one line of the text table."""
    memory = f"{t.gigabytes:7.2f}" if t.gigabytes is not None else "      -"
    return f"{t.case:<12}{t.way:<30}{t.milliseconds:9.3f}{t.tokens_per_second:13.0f}{t.tflops:9.2f}{t.start_seconds:9.1f}{memory}  {t.path}"


def the_case(name: str) -> Case:
    """Look up a size of model by its name.

    Raises:
        UserError: an unknown size.
    """
    for case in CASES:
        if case.name == name:
            return case
    raise UserError(f"unknown case '{name}'; {did_you_mean(name, [case.name for case in CASES])}")


def _time(case: Case, way: str, device: torch.device, steps: int, rows: int) -> Timing:
    started = time.perf_counter()
    on_gpu = device.type == "cuda"
    if on_gpu:
        _wait(device)  # the first call of all starts CUDA
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    if "torch._dynamo" in sys.modules:  # its import takes seconds
        torch._dynamo.reset()
    step = make_step(case, way, device, rows)
    for _ in range(5 if on_gpu else 1):
        step()
    _wait(device)
    start_seconds = time.perf_counter() - started
    blocks, per_block = (5, max(1, steps // 5)) if on_gpu else (steps, 1)  # a graph's steps overlap with their launches: timed in blocks
    seconds = statistics.median(_block(step, per_block, device) for _ in range(blocks))
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else None
    rates = rows * TOKENS / seconds, case.step_flops(rows) / seconds / 1e12
    return Timing(case.name, way, 1e3 * seconds, *rates, start_seconds, memory, path_of(case, way, device, rows), rows)


def path_of(case: Case, way: str, device: torch.device, rows: int) -> str:
    """What computes a way's step: transformers, kernels, or autograd and why."""
    if way in ("reference", "compiled"):
        return "transformers"
    against = why_not(_facts(case, way, device, rows))
    return "kernels" if against is None else f"autograd: {against}"


def _facts(case: Case, way: str, device: torch.device, rows: int) -> Training:
    """What decides whether the step of a case and a way is the kernels'."""
    base, _, regularizer = way.partition("+")
    kernels: bool | Literal["auto"] = "auto" if base == "ours" else base == "kernels"
    precision = resolve_precision("auto", device.type)
    return Training(case.config(), device, precision, TOKENS, rows, (regularizer,) if regularizer else (), kernels=kernels)


def _block(step: Callable[[], object], count: int, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_step(case: Case, way: str, device: torch.device, rows: int = BATCH) -> Callable[[], object]:
    """A function that trains one step in the chosen way."""
    rows_NT = torch.randint(case.vocabulary, (8 * rows, TOKENS), generator=torch.Generator().manual_seed(0))
    if way in ("reference", "compiled"):
        from tinymem.bench.transformers_step import transformers_step

        return transformers_step(case, rows_NT, device, rows, compiled=way == "compiled")
    return our_step(case, rows_NT, device, rows, way)


@dataclass(frozen=True)
class _Settings:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1


def our_step(case: Case, rows_NT: Tensor, device: torch.device, rows: int, way: str) -> Callable[[], object]:
    """TinyMem's training step on batches of rows that are on the device."""
    from tinymem.bench.transformers_step import endless
    from tinymem.training.step import GraphedStep, Step

    base, _, regularizer = way.partition("+")
    kind = kernel_step(_facts(case, way, device, rows))
    made = our_parts(case, rows_NT, device, kind or (GraphedStep if device.type == "cuda" else Step), regularizer)
    if isinstance(made, GraphedStep) and base != "graph":
        made.compiling, made.batch_size = True, rows
    turn = iter(endless(torch.arange(len(rows_NT), device=device).split(rows)))
    return lambda: made(next(turn))


def our_parts(
    case: Case,
    rows_NT: Tensor,
    device: torch.device,
    kind: type[Step],
    regularizer: str = "",
    precision: Precision = "auto",
    process: tuple[int, int] = (0, 1),
    seed: int = 0,
) -> Step:
    """A fresh model of a seed with its optimizer and regularizer in a step of this kind; `process`: see `Step`."""
    from tinymem.models.gpt2 import GPT
    from tinymem.training.loss import LossModel, batch_loss
    from tinymem.training.optimizer import make_optimizer
    from tinymem.training.precision import precision_context
    from tinymem.training.regularizer import Regularizers
    from tinymem.training.step import Step

    model = GPT(case.config(), seed=seed).to(device).train()
    regularizers = _regularizer(regularizer) if regularizer else Regularizers()
    regularizers.attach(model)
    optimizer = make_optimizer(model.parameters(), _Settings(), device=None if kind is Step else device)
    context = precision_context(resolve_precision(precision, device.type), device.type)
    return kind(LossModel(model), optimizer, rows_NT.to(device), batch_loss, regularizers, context, process)


def _regularizer(name: str) -> Regularizers:
    from tinymem.recipe.kinds import REGULARIZERS
    from tinymem.training.regularizer_section import make_regularizers

    return make_regularizers([REGULARIZERS.get(name)(kind=name)])


def main(words: list[str] | None = None) -> None:
    """Command line without the package's other dependencies."""
    parser = argparse.ArgumentParser(prog="python -m tinymem.bench.train", description="Time a training step.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", action="append", help=f"one of {', '.join(c.name for c in CASES)}; may be repeated")
    parser.add_argument("--way", action="append", help=f"one of {', '.join(all_ways())}; may be repeated")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a batch")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    given = parser.parse_args(words)
    cases = given.case or list(DEFAULT_CASES)
    try:
        place = resolve_device(given.device)
        ways = given.way or default_ways(place)
        timings = bench(
            cases,
            ways,
            device=place,
            steps=given.steps,
            rows=given.batch,
            say=lambda text: None if given.json else print(text, flush=True),
        )
    except UserError as error:
        sys.exit(complain(str(error), 2))
    if given.json:
        print(json_lines(timings))


def default_ways(device: str) -> list[str]:
    """The ways of the comparison: three on a GPU, two on a CPU, where nothing is compiled."""
    return ["reference", "compiled", "ours"] if device.startswith("cuda") else ["reference", "graph"]


if __name__ == "__main__":
    main()
