"""Does recall of injected sequences predict what an edit leaves and costs? Both measured with the same scorers, ratios and models.

    python benchmarks/localization_link.py zoo/math-add-noise-2l-s0 zoo/math-add-noise-2l-s1 zoo/math-add-noise-2l-s3 --out link
    tinymem report link --tables link --format markdown
    tinymem report link --format png --out figures

The recipes bring baselines of their own (recipes/link/baselines.py).

Each model has three folders under --out: INJ into neurons, INJ into weights (recipes/link/), and edits at the same ratios, whose rows to
forget are at most --forget rows that the model memorized (half of them are the holdout); of the --retain clean test rows, half are given to
the methods and half give the perplexity. What is there is not made again. Slim and Hard Concrete count epochs in edits, steps in INJ: an
edit takes their default.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tinymem.data.rows import Rows, concatenate
from tinymem.evaluation.evaluator import Evaluator
from tinymem.localization.deletion import suffix_accuracy
from tinymem.mitigation.ablation import AblationConfig, Scores, ablate, select
from tinymem.mitigation.files_subject import identity_of
from tinymem.mitigation.method import MethodCall, apply, parse_call
from tinymem.mitigation.run import outcome_of, row_id
from tinymem.mitigation.subject import Subject, subject_of_rows
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.localization import LocalizationRecipe, load_localization
from tinymem.results.store import run_file, write_run
from tinymem.runs.localization import localize
from tinymem.runs.subjects import own_corpus

import torch  # isort: skip (after tinymem, which sets its threads)

ROOT = Path(__file__).parents[1]
GATES = ("slim", "hard-concrete")


def drawn(rows: Rows, count: int) -> Rows:
    return rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].sort().values)


def subject_of(path: Path, forget: int, retain: int) -> Subject:
    loaded = load_checkpoint(path, device="cpu")
    recipe, corpus = own_corpus(loaded, path)
    (probe,) = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol).probes.values()
    memorized = (suffix_accuracy(loaded.model, probe.rows) == 1).nonzero().flatten()
    tests = drawn(concatenate([Rows.of(ids) for ids in corpus.tests.values()]), retain)
    identity = replace(identity_of(loaded, path, "cpu"), seed=0)
    return subject_of_rows(loaded.model, drawn(probe.rows.take(memorized), forget), tests, identity=identity)


def calls(recipe: LocalizationRecipe) -> Iterator[list[MethodCall]]:
    """Each method at all ratios."""
    for method in recipe.wanted_methods:
        options = {k: v for k, v in method.options.items() if k != "epochs" or method.name not in GATES}
        yield [parse_call(method.name, {**options, "ratio": ratio}) for ratio in recipe.wanted_ratios]


def ratio_of(call: MethodCall) -> float:
    assert isinstance(call.config, AblationConfig)
    return call.config.ratio


def edit(subject: Subject, asked: list[MethodCall], names: list[str], out: Path) -> None:
    """Edits of one method; scores are made once: they do not depend on the ratio, but that Greedy ranks as many as its ratio says."""
    scores: Scores | None = None
    most = max(asked, key=ratio_of)
    for call, name in zip(asked, names, strict=True):
        if call.method.kind == "edit":
            edited = apply(call.method, subject.model, subject.data, call.config)
        else:
            assert isinstance(call.config, AblationConfig)
            scores = scores or most.method.function(subject.model, subject.data, most.config)
            edited = ablate(subject.model, select(subject.model, scores, call.config))
        write_run(out, name, outcome_of(subject, call, edited, row=name).rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--forget", type=int, default=60)
    parser.add_argument("--retain", type=int, default=100)
    parser.add_argument("--unit", choices=("neurons", "weights"), help="only one half; default: both")
    parser.add_argument("--methods", help="only these, such as act,durable; default: all of the recipes")
    given = parser.parse_args()
    recipes = {unit: load_localization(ROOT / "recipes" / "link" / f"inj-{unit}.yaml") for unit in ("weights", "neurons")}
    recipes = {unit: recipe for unit, recipe in recipes.items() if given.unit in (None, unit)}
    if given.methods:
        only = given.methods.split(",")
        recipes = {k: r.model_copy(update={"methods": tuple(m for m in r.methods if m.name in only)}) for k, r in recipes.items()}
        recipes = {unit: recipe for unit, recipe in recipes.items() if recipe.methods}
    for path in given.models:
        began, subject, out = time.process_time(), subject_of(path, given.forget, given.retain), given.out / f"edits-{path.name}"
        for unit, recipe in recipes.items():
            for asked in calls(recipe):
                names = [row_id(subject.identity, call, [given.forget, given.retain]) for call in asked]
                if not all(run_file(out, name).is_file() for name in names):
                    edit(subject, asked, names, out)
                    print(f"{path.name}: edits by {asked[0].name}, {time.process_time() - began:.0f} s", flush=True)
            localize(path, recipe, out=given.out / f"{unit}-{path.name}", device="cpu")
            print(f"{path.name}: INJ of {unit}, {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
