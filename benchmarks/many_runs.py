"""Many small training runs on one GPU: one after another, as streams of one process, or as processes of their own.

    python benchmarks/many_runs.py --case math-2 --case math-4 --runs 1,2,4,8 --steps 400

Every line gives the milliseconds that one step of one run costs when so many runs go on at once, and how many times as fast that is as one
run after another. `streams`: one thread replays each run's CUDA graph in turn, each on a stream of its own. `processes`: so many processes
share the GPU, which takes turns between them; `mps`: they share it through NVIDIA's Multi-Process Service, side by side. Data,
measurements and start-up are left out: this is about steps alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.bench.sizes import CASES, TOKENS
from tinymem.bench.train import our_parts
from tinymem.training.step import GraphedStep

import torch  # isort: skip (after tinymem, which sets its threads)

BATCH = 128


def steps_of(case_name: str, count: int, way: str) -> list[GraphedStep]:
    """So many runs' steps, captured."""
    case = next(c for c in CASES if c.name == case_name)
    rows = torch.randint(case.vocabulary, (8 * BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    device = torch.device("cuda")
    made = []
    for _ in range(count):
        step = our_parts(case, rows, device, GraphedStep)
        if way == "ours":
            step.compiling, step.batch_size = True, BATCH
        step(torch.arange(BATCH, device=device))
        made.append(step)
    torch.cuda.synchronize()
    return made


def streams(case: str, count: int, steps: int, way: str) -> float:
    """Milliseconds per run and step."""
    runs, lanes = steps_of(case, count, way), [torch.cuda.Stream() for _ in range(count)]
    batches = torch.arange(8 * BATCH, device="cuda").split(BATCH)

    def go(n: int) -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for i in range(n):
            for run, lane in zip(runs, lanes, strict=True):
                with torch.cuda.stream(lane):
                    run(batches[i % 8])
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started) / n / count

    go(20)
    return sorted(go(steps // 4) for _ in range(5))[2]


def processes(case: str, count: int, steps: int, way: str) -> float:
    """Milliseconds per run and step, with all processes at work all the while."""
    return _processes(case, count, steps, way, {})


def mps(case: str, count: int, steps: int, way: str) -> float:
    """The same, as clients of one MPS server of our own, so that kernels of several processes run side by side."""
    with tempfile.TemporaryDirectory() as place:
        environment = {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env={**os.environ, **environment}, check=True)
        try:
            return _processes(case, count, steps, way, environment)
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit -t 5\n", text=True, env={**os.environ, **environment}, check=False)


def _processes(case: str, count: int, steps: int, way: str, environment: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        words = [sys.executable, __file__, "--child", scratch, "--case", case, "--steps", str(steps), "--way", way]
        setting = {"stdout": subprocess.PIPE, "text": True, "env": {**os.environ, **environment}}
        children = [subprocess.Popen([*words, "--name", str(k)], **setting) for k in range(count)]
        while len(list(Path(scratch).glob("ready-*"))) < count:
            if any(child.poll() for child in children):
                raise SystemExit("a process failed; see above")
            time.sleep(0.05)
        (Path(scratch) / "go").touch()
        times = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    # Each timed its steps between the moments that all had begun and the first had ended: rates add up.
    return 1.0 / sum(1.0 / milliseconds for milliseconds in times)


def child(scratch: Path, name: str, case: str, steps: int, way: str) -> None:
    """One process: get ready, wait for the others, time steps in blocks, and go on until all have their figure."""
    (step,) = steps_of(case, 1, way)
    batches = torch.arange(8 * BATCH, device="cuda").split(BATCH)
    (scratch / f"ready-{name}").touch()
    while not (scratch / "go").exists():
        time.sleep(0.01)
    expected, times, deadline = len(list(scratch.glob("ready-*"))), [], time.perf_counter() + 120
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        for i in range(steps // 4):
            step(batches[i % 8])
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started) / (steps // 4))
        if len(times) == 6:
            (scratch / f"done-{name}").touch()
        if len(list(scratch.glob("done-*"))) == expected:
            break
    print(json.dumps(sorted(times[1:6])[2]), flush=True)


WAYS = {"streams": streams, "processes": processes, "mps": mps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append")
    parser.add_argument("--runs", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--way", choices=("graph", "ours"), default="ours", help="without or with torch.compile")
    parser.add_argument("--ways", default="streams,processes,mps")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    faulthandler.dump_traceback_later(60, repeat=True)  # says where it hangs, if it does
    if given.child:
        child(given.child, given.name, given.case[0], given.steps, given.way)
        return
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; batch {BATCH}, {TOKENS} tokens")
    for case in given.case or ["math-2", "math-4"]:
        alone = streams(case, 1, given.steps, given.way)
        print(f"{case:<12} alone               {alone:7.3f} ms a step and run")
        for count in (int(n) for n in given.runs.split(",") if int(n) > 1):
            for name in given.ways.split(","):
                each = WAYS[name](case, count, given.steps, given.way)
                print(f"{case:<12} {count:>2} {name:<15} {each:7.3f} ms a step and run: {alone / each:.2f} times", flush=True)


if __name__ == "__main__":
    main()
