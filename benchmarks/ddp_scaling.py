"""One model on more and more GPUs of one host, the same global batch: milliseconds a step, speed-up, and that the losses stay the same.

    python benchmarks/ddp_scaling.py --processes 1 2                              # the 16-layer language model on GPUs
    python benchmarks/ddp_scaling.py --processes 1 2 --device cpu --case math-2 --rows 8 --steps 4

Each number of processes is a `torchrun` of this file. Its processes take their parts of the same batches with TinyMem's own step, which on
GPUs is one CUDA graph with the all-reduce of the gradients in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

BATCHES = 8


def worker(given: argparse.Namespace) -> None:
    """One process's part of a measurement; the first one prints it."""
    import torch

    from tinymem.bench.sizes import TOKENS
    from tinymem.bench.train import our_parts, the_case
    from tinymem.training.parallel import make_processes, mean_over_processes
    from tinymem.training.step import GraphedStep, Step

    processes = make_processes(given.device)
    case, process = the_case(given.case), (processes.global_rank, processes.world_size)
    rows_NT = torch.randint(case.vocabulary, (BATCHES * given.rows, TOKENS), generator=torch.Generator().manual_seed(0))
    on_gpu = processes.device.type == "cuda"
    kind: type[Step] = GraphedStep if on_gpu else Step
    if given.kernels:
        from tinymem.training.whole_step.step import KernelStep as kind
    step = our_parts(case, rows_NT, processes.device, kind, precision=given.precision, process=process)
    if kind is GraphedStep and given.compile:
        step.compiling, step.batch_size = True, given.rows
    batches = torch.arange(len(rows_NT), device=processes.device).split(given.rows)

    def run(steps: int) -> float:
        processes.barrier()
        started = time.perf_counter()
        for i in range(steps):
            step(batches[i % BATCHES])
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(5)
    step.loss_sum.zero_()
    seconds = min(run(given.steps) for _ in range(3))
    loss = float(mean_over_processes(step.loss_sum)) / (3 * given.steps)
    if processes.global_rank == 0:
        device = torch.cuda.get_device_name(processes.device) if on_gpu else "cpu"
        print(json.dumps({"processes": processes.world_size, "milliseconds": 1e3 * seconds / given.steps, "loss": loss, "device": device}))


def launch(processes: int, given: argparse.Namespace) -> dict[str, float]:
    """A measurement with so many processes."""
    words = ["--device", given.device, "--case", given.case, "--rows", given.rows, "--steps", given.steps, "--precision", given.precision]
    words += ([] if given.compile else ["--no-compile"]) + (["--kernels"] if given.kernels else [])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, __file__, "--worker", *words]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([str(word) for word in launcher], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--case", default="language-16", help="a size of `tinymem bench train`")
    parser.add_argument("--rows", type=int, default=128, help="of the global batch")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="the graph without torch.compile")
    parser.add_argument("--kernels", action="store_true", help="the step of whole-block kernels")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return
    print(
        f"{given.case}, {given.rows} rows a step\n{'processes':>9}{'ms/step':>10}{'speed-up':>10}{'efficiency':>12}{'loss':>12}  device",
        flush=True,
    )
    first: dict[str, float] = {}
    for processes in given.processes:
        found = launch(processes, given)
        first = first or found
        gain = first["milliseconds"] / found["milliseconds"]
        share = gain * first["processes"] / processes
        numbers = f"{processes:>9}{found['milliseconds']:>10.3f}{gain:>10.2f}{100 * share:>10.0f} %{found['loss']:>12.6f}"
        print(f"{numbers}  {found['device']}", flush=True)


if __name__ == "__main__":
    main()
