"""What two processes do together in the tests, in one start of both: training by the command line, measuring, and stopping.

    torchrun --nproc_per_node 2 two_processes.py FOLDER RUN

FOLDER has `recipes.json`, lists of words of the command line, and `stopping.json`, a recipe and its overrides; RUN is a finished run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tinymem.cli import main as cli
from tinymem.data.build import make_corpus
from tinymem.errors import Stopped
from tinymem.evaluation.evaluator import Evaluator
from tinymem.recipe.recipe import load_recipe
from tinymem.runs.pipeline import open_run
from tinymem.training import loop

RANK = int(os.environ["RANK"])


def command_lines(folder: Path) -> None:
    for words in json.loads((folder / "recipes.json").read_text()):
        sys.argv = ["tinymem", *words]
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code, words


def measure(folder: Path, run_folder: Path) -> None:
    """Every metric of a run's model, each process its part."""
    run = open_run(run_folder)
    setting = run.recipe.evaluation.model_copy(update={"batch_size": 8, "ks": (6, 16)})
    process = (dist.get_rank(), dist.get_world_size())
    measured = Evaluator.of_corpus(run.corpus(), setting, "paper", metrics=("all",), process=process).measure(run.model())
    found = {"metrics": measured.metrics(), "accuracy": measured.accuracy.as_dict()}
    (folder / f"measured-{RANK}.json").write_text(json.dumps(found))


def stop_one(folder: Path) -> None:
    """One of them gets a signal in its second step; what both leave is copied, and both go on."""
    recipe = load_recipe(*json.loads((folder / "stopping.json").read_text()))
    corpus, real, done = make_corpus(recipe), loop.Step._step, 0
    loop.STOP_TOGETHER = 3  # where the two have seen losses of other sums

    def step(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == 2 and RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        real(*arguments)

    loop.Step._step = step  # type: ignore[method-assign]
    try:
        loop.train(recipe, corpus, folder / "stopped")
    except Stopped as stop:
        # Files: what two processes print to one pipe can interleave within a line.
        (folder / f"stopped-{RANK}").write_text(str(stop))
        if RANK == 0:
            shutil.copytree(folder / "stopped", folder / "alone")
    loop.Step._step = real  # type: ignore[method-assign]
    loop.train(recipe, corpus, folder / "stopped")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder, run = map(Path, sys.argv[1:])
    command_lines(folder)
    measure(folder, run)
    stop_one(folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
