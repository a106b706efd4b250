"""Seconds and peak memory of every method on the paper's 4-layer math model, compared with plain loops.

`tinymem bench unlearn`, or `python -m tinymem.bench.unlearn` where typer is missing: this path needs torch and numpy only.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch

from tinymem.bench.case import Case, math_case
from tinymem.bench.comparisons import GREEDY_RATIO, Comparison, compare
from tinymem.errors import UserError, complain
from tinymem.mitigation.method import UNLEARNERS, all_methods, apply
from tinymem.runtime.cost import Cost, measured
from tinymem.runtime.device import describe_device, resolve_device

# Options at which the published times were taken (paper, Table 1); BalancedSubnet's is at ratio 0.5, which changes no step's work.
OPTIONS: dict[str, dict[str, float | str]] = {
    "act": {"ratio": 0.05},
    "zero": {"ratio": 0.01},
    "ig": {"ratio": 0.05},
    "slim": {"ratio": 0.05, "epochs": 20, "stop": 0.0},
    "hard-concrete": {"ratio": 0.05, "epochs": 20, "stop": 0.0},
    "durable": {"ratio": 0.01},
    "durable-agg": {"ratio": 0.01},
    "sou": {"ratio": 0.05},
    "greedy": {"ratio": GREEDY_RATIO, "of": "model"},
    "subnet": {"ratio": 0.1, "epochs": 1},
    "balanced-subnet": {"ratio": 0.1, "epochs": 10},
}
HEADER = ("method", "seconds", "peak MB", "plain loop, s", "times", "measured on", "difference there")


def bench(
    *, scale: float = 1.0, methods: Sequence[str] = (), device: str = "auto", rows: int = 4, plain: bool = True
) -> Iterator[tuple[str, ...]]:
    """Cells of one table row per method, as they are measured.

    Args:
        scale: times the rows of the paper's corpus, and the steps of Greedy where it is below 1.
        methods: names, or `all`; those with a plain loop by default.
        device: `auto`, `cpu` or `cuda`.
        rows: forget rows that the slow plain loops run on, at least 4.
        plain: whether to run the plain loops.

    Raises:
        UserError: an unknown method, or fewer than 4 rows.
    """
    if rows < 4:
        raise UserError(f"expected at least 4 rows for the plain loops, got {rows}")
    names = all_methods() if list(methods) == ["all"] else list(methods) or list(OPTIONS)
    device = resolve_device(device)
    case, small = math_case(scale, device), math_case(0.04, device)
    for name in names:
        _run(name, small, 0.01, warm_up=True)
        cost = _run(name, case, scale)
        yield _cells(name, cost, compare(name, case, rows, scale) if plain else None)


def _run(name: str, case: Case, scale: float, *, warm_up: bool = False) -> Cost:
    method = UNLEARNERS.get(name)
    options = dict(OPTIONS.get(name, {}))
    if warm_up and "epochs" in {f.name for f in fields(method.config)}:
        options["epochs"] = 1
    if name == "greedy":  # its steps do not depend on the number of rows
        options["ratio"] = GREEDY_RATIO * min(1.0, scale)
    with measured(case.data.forget.ids.device) as cost:
        apply(method, case.model, case.data, method.config(**options))
    return cost


def _cells(name: str, cost: Cost, comparison: Comparison | None) -> tuple[str, ...]:
    cells = (name, f"{cost.seconds:.3f}", f"{cost.peak_mb:.0f}")
    if comparison is None:
        return (*cells, "", "", "", "")
    whole = comparison.seconds * comparison.factor
    return (*cells, f"{whole:.3g}", f"{whole / cost.seconds:.1f}", comparison.part, comparison.difference)


def about(scale: float, device: str) -> list[str]:
    """What the table was measured on, in sentences."""
    case, where = math_case(scale, "cpu"), describe_device(resolve_device(device))
    return [
        f"{where}, torch {torch.__version__}, python {platform.python_version()}, fp32.",
        f"4-layer math model, random weights; {len(case.data.forget)} rows to forget, {len(case.data.retain)} to keep, 150 tokens.",
        "Plain loops: measured on the part that the table names, and scaled up.",
    ]


def print_bench(*, scale: float, methods: Sequence[str], device: str, rows: int, plain: bool = True) -> None:
    """Print the table in Markdown, row by row."""
    print(*about(scale, device), sep="\n", end="\n\n")
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    for cells in bench(scale=scale, methods=methods, device=device, rows=rows, plain=plain):
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Command line that works without typer."""
    parser = argparse.ArgumentParser(prog="python -m tinymem.bench.unlearn", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of the paper's corpus")
    parser.add_argument("--methods", default="", help="names with commas between, or all; those with a plain loop by default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plain-rows", type=int, default=4, help="forget rows that the slow plain loops run on")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain loops out")
    given = parser.parse_args()
    methods = [name for name in given.methods.split(",") if name]
    try:
        print_bench(scale=given.scale, methods=methods, device=given.device, rows=given.plain_rows, plain=not given.no_plain)
    except UserError as error:
        sys.exit(complain(str(error), 2))


if __name__ == "__main__":
    main()
