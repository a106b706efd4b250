"""Whether configurations of one method finish sooner side by side on one GPU than one after the other.

    python benchmarks/many_per_gpu.py --method balanced-subnet --method finetune-clean --counts 2,4,8

One process runs N configurations in turn; then N processes run one each, all at once, as the workers of a sweep do. Start-up (imports,
the model, kernels' first use) is left out: every process warms up, waits for the others, and is timed from the common start to the last
one's end. Stacking configurations inside one process (all masks in one batched product) is not built: a replayed step of one mask keeps
the GPU busy already, and N masks at once are N times the arithmetic.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.bench.case import math_case
from tinymem.mitigation.method import UNLEARNERS, apply, parse_config
from tinymem.runtime.device import describe_device, resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)

CASES: dict[str, dict[str, Any]] = {
    "balanced-subnet": {"ratio": 0.1, "epochs": 1},
    "subnet": {"ratio": 0.1, "epochs": 20},
    "finetune-clean": {"epochs": 50},
    "finetune-both": {"epochs": 1},
    "npo": {"epochs": 10},
}


def edits(method: str, count: int, device: str, scale: float, ready: Any = None) -> float:
    """Seconds of `count` edits in turn, after one that warms up."""
    case, unlearner = math_case(scale, device), UNLEARNERS.get(method)
    apply(
        unlearner,
        math_case(min(scale, 0.02), device).model,
        math_case(min(scale, 0.02), device).data,
        parse_config(unlearner, {"epochs": 1}),
    )
    if ready is not None:
        ready()
    started = time.perf_counter()
    for k in range(count):
        options = {**CASES[method], **({"loss_weight": 0.5 + 0.05 * k} if method == "balanced-subnet" else {})}
        apply(unlearner, case.model, case.data, parse_config(unlearner, options))
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def child(method: str, folder: Path, name: str, device: str, scale: float) -> None:
    """One of several processes: gets ready, waits for all, edits once."""

    def ready() -> None:
        (folder / f"ready-{name}").touch()
        while not (folder / "go").exists():
            time.sleep(0.001)

    edits(method, 1, device, scale, ready)
    (folder / f"done-{name}").touch()


def side_by_side(method: str, count: int, device: str, scale: float) -> float:
    """Seconds until all of `count` processes have done one edit each."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = [sys.executable, __file__, "--child", place, "--method", method, "--device", device, "--scale", str(scale)]
        children = [subprocess.Popen([*words, "--name", str(k)]) for k in range(count)]
        while len(list(folder.glob("ready-*"))) < count:
            if any(process.poll() for process in children):
                raise SystemExit("a process failed; see above")
            time.sleep(0.02)
        started = time.perf_counter()
        (folder / "go").touch()
        while len(list(folder.glob("done-*"))) < count:
            if any(process.poll() for process in children):
                raise SystemExit("a process failed; see above")
            time.sleep(0.002)
        seconds = time.perf_counter() - started
        for process in children:
            process.wait()
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", choices=list(CASES))
    parser.add_argument("--counts", default="2,4,8")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of the paper's corpus")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device, methods = resolve_device(given.device), given.method or ["balanced-subnet", "finetune-clean"]
    if given.child:
        child(methods[0], given.child, given.name, device, given.scale)
        return
    print(f"{describe_device(device)}, torch {torch.__version__}")
    for method in methods:
        for count in (int(n) for n in given.counts.split(",")):
            turns, together = edits(method, count, device, given.scale), side_by_side(method, count, device, given.scale)
            print(
                f"{method:<16} {count} edits: {turns:7.2f} s in turn, {together:7.2f} s at once: {turns / together:.2f} times", flush=True
            )


if __name__ == "__main__":
    main()
