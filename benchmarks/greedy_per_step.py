"""What Greedy loses by zeroing m weights a step instead of one, on the zoo's 4-layer math models.

    python benchmarks/greedy_per_step.py --zoo zoo --device cuda

A line a model, ratio, m and order of the batches: per cent of all artifact rows that are left memorized, accuracy in per cent, seconds,
and the differences to m = 1 in the first order. Other orders at m = 1 tell what chance does. The last line has the largest differences.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tinymem
from tinymem.zoo.loading import load

MODELS = [f"math-mult-{artifact}-4l-s{seed}" for artifact in ("noise", "backdoor") for seed in (0, 1, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path("zoo"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--ratios", default="0.001,0.01")
    parser.add_argument("--per-step", default="2,3,4,16,64,auto", help="values of m beside 1")
    parser.add_argument("--orders", type=int, default=3, help="orders of the batches at m = 1")
    given = parser.parse_args()
    most: dict[str, list[float]] = {}
    runs = [("1", order) for order in range(given.orders)] + [(m, 0) for m in given.per_step.split(",")]
    for name in given.models.split(","):
        subject = load(name, device=given.device, zoo=given.zoo).subject()
        for ratio in map(float, given.ratios.split(",")):
            one: tuple[float, float] | None = None
            for m, order in runs:
                ordered = replace(subject, data=replace(subject.data, seed=subject.data.seed + 1000 * order))
                (row,) = tinymem.mitigate(ordered, "greedy", {"ratio": ratio, "per_step": m if m == "auto" else int(m)}).rows
                left, accuracy = 100 * (row.memorized_after or 0), 100 * (row.performance_after or 0)
                one = one or (left, accuracy)
                apart = [round(left - one[0], 2), round(accuracy - one[1], 3)]
                record = {"model": name, "ratio": ratio, "m": m, "order": order, "left": round(left, 2), "accuracy": round(accuracy, 3)}
                print(json.dumps(record | {"to m = 1": apart, "seconds": round(row.seconds or 0, 2), "status": row.status}), flush=True)
                key = "m = 1, other orders" if order else f"m = {m}"
                most[key] = [max(abs(a), b) for a, b in zip(apart, most.get(key, [0.0, 0.0]), strict=True)]
    print(json.dumps({"largest differences": most}))


if __name__ == "__main__":
    main()
