"""Seconds of one measurement of a run's model, on one core: bare, with the default metrics, with each metric, with all.

    python benchmarks/measurement.py runs/quickstart-* [--threads 1] [--repeats 9]

CPU seconds of this process, the best of several; what else runs on the machine counts little. The bare loop over probes and test sets that
a measurement replaces is timed beside it, and must give the same counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from tinymem.evaluation.evaluator import Evaluator
from tinymem.evaluation.metric import METRICS
from tinymem.runs.pipeline import open_run

import torch  # isort: skip (after tinymem, which sets its threads)
import torch.nn.functional as F  # isort: skip


def best(work: Callable[[], object], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


@torch.no_grad()
def bare_loop(model: torch.nn.Module, evaluator: Evaluator) -> tuple[int, list[int], float]:
    """One pass for each probe and test set, all tokens through the head, batches of 512 rows."""
    right, loss = 0, 0.0
    for ids, scored in evaluator.tests.values():
        for rows, mask in zip(ids.split(512), scored.split(512), strict=True):
            logits = model(rows)[:, :-1].float()
            right += int(((logits.argmax(-1) == rows[:, 1:]) & mask[:, 1:]).sum())
            losses = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
            loss += float((losses.double() * mask[:, 1:]).sum())
    memorized = []
    for probe in evaluator.probes.values():
        wrong = (model(probe.rows.ids)[:, :-1].argmax(-1) != probe.rows.ids[:, 1:]) & probe.rows.window()[:, 1:]
        memorized.append(int((~wrong.any(1)).sum()))
    return right, memorized, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = open_run(arguments.run)
    model, corpus, recipe = run.model(), run.corpus(), run.recipe

    def evaluator(*metrics: str) -> Evaluator:
        return Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, metrics=metrics)

    bare = evaluator()
    measured = bare.measure(model)
    if recipe.protocol == "paper":
        right, memorized, _ = bare_loop(model, bare)
        assert (right, memorized) == (measured.accuracy.count, [int(flags.sum()) for flags in measured.memorized.values()])
    print(f"{'bare loop':<28}{best(lambda: bare_loop(model, bare), arguments.repeats):.3f} s")
    plain = best(lambda: bare.measure(model), arguments.repeats)
    print(f"{'measurement':<28}{plain:.3f} s")
    for names in (("default",), *((name,) for name in METRICS.names()), ("all",)):
        asked = evaluator(*names)
        seconds = best(lambda asked=asked: asked.measure(model).metrics(), arguments.repeats)
        print(f"{'with ' + names[0]:<28}{seconds:.3f} s ({seconds / plain - 1:+.0%})")


if __name__ == "__main__":
    main()
