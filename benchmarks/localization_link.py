"""Does recall of injected sequences predict what an edit leaves and costs? Both measured with the same scorers, ratios and models.

    python benchmarks/localization_link.py zoo/math-add-noise-2l-s0 zoo/math-add-noise-2l-s1 zoo/math-add-noise-2l-s3 --out link
    tinymem report link --tables link --format markdown
    tinymem report link --format png --out figures

Each model has three folders under --out: INJ into neurons, INJ into weights (recipes/link/), and edits at the same ratios, whose rows to
forget are at most --forget rows that the model memorized (half of them are the holdout) and whose --retain clean test rows give perplexity.
What is there is not made again. A scorer that the INJ recipes give other numbers of steps has its own default in the edits.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch

from tinymem.data.rows import Rows, concatenate
from tinymem.evaluation.evaluator import Evaluator
from tinymem.mitigation.files_subject import identity_of
from tinymem.mitigation.method import parse_call
from tinymem.mitigation.run import row_id, run_call
from tinymem.mitigation.subject import Subject, subject_of_rows
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.localization import load_localization
from tinymem.results.store import run_file, write_run
from tinymem.runs.localization import localize
from tinymem.runs.subjects import own_corpus

ROOT = Path(__file__).parents[1]
STEPS = ("slim", "hard-concrete")


def drawn(rows: Rows, count: int) -> Rows:
    return rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].sort().values)


def subject_of(path: Path, forget: int, retain: int) -> Subject:
    loaded = load_checkpoint(path, device="cpu")
    recipe, corpus = own_corpus(loaded, path)
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol)
    (kind,) = evaluator.probes
    (memorized,) = evaluator.measure(loaded.model).memorized[kind].nonzero()
    rows = drawn(evaluator.probes[kind].rows.take(torch.from_numpy(memorized)), forget)
    tests = drawn(concatenate([Rows.of(ids) for ids in corpus.tests.values()]), retain)
    return subject_of_rows(loaded.model, rows, tests, identity=replace(identity_of(loaded, path, "cpu"), seed=0))


def edit(path: Path, out: Path, given: argparse.Namespace) -> None:
    recipes = [load_localization(ROOT / "recipes" / "link" / f"inj-{unit}.yaml") for unit in ("neurons", "weights")]
    subject = subject_of(path, given.forget, given.retain)
    for recipe in recipes:
        for method in recipe.wanted_methods:
            options = {k: v for k, v in method.options.items() if k != "epochs" or method.name not in STEPS}
            for ratio in recipe.wanted_ratios:
                call = parse_call(method.name, {**options, "ratio": ratio})
                name = row_id(subject.identity, call, [given.forget, given.retain])
                if run_file(out, name).is_file():
                    continue
                began = time.process_time()
                outcome = run_call(subject, call, row=name)
                write_run(out, name, outcome.rows)
                print(f"{path.name} {method.name} {ratio:g}: {outcome.rows[0].status}, {time.process_time() - began:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--forget", type=int, default=100)
    parser.add_argument("--retain", type=int, default=200)
    given = parser.parse_args()
    for path in given.models:
        edit(path, given.out / f"edits-{path.name}", given)
        for unit in ("weights", "neurons"):
            began = time.process_time()
            recipe = load_localization(ROOT / "recipes" / "link" / f"inj-{unit}.yaml")
            localize(path, recipe, out=given.out / f"{unit}-{path.name}", device="cpu")
            print(f"{path.name} INJ of {unit}: {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
