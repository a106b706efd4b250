"""Which of the two moments needs many rows: accuracy of curvature edits whose A and G come from different numbers of clean rows.

    python benchmarks/curvature_moments.py zoo/math-mult-noise-4l-s0 --rows 1000 20000 --rho 0.99 0.95

Prints a line of JSON for each pair of numbers and each rho: accuracy on test rows of all tasks, and before. The numbers of rows are nested:
the first so many of one order.
"""

from __future__ import annotations

import argparse
import json
import sys
from copy import deepcopy
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows, concatenate
from tinymem.evaluation.accuracy import as_mask, scored_tokens
from tinymem.mitigation.method import Performance
from tinymem.mitigation.methods.curvature._budget import Judge
from tinymem.mitigation.methods.curvature._common import by_curvature, shuffled
from tinymem.mitigation.methods.curvature._moments import Moments, moments, objectives_of
from tinymem.mitigation.methods.curvature._projections import projections
from tinymem.mitigation.methods.curvature._spectrum import Spectrum
from tinymem.mitigation.subject import clean_rows
from tinymem.models.checkpoint import load_checkpoint
from tinymem.recipe.recipe import Recipe
from tinymem.runs.subjects import own_corpus
from tinymem.runtime.device import resolve_device

import torch  # isort: skip (after tinymem, which sets its threads)


def scored(corpus: Corpus, recipe: Recipe, rows: Rows) -> torch.Tensor:
    """The tokens that accuracy is taken over."""
    tokens = scored_tokens(rows.ids.cpu().numpy(), corpus.pad, recipe.protocol, text=corpus.is_text)
    return as_mask(tokens, rows.ids.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--rho", type=float, nargs="+", default=[0.99, 0.95])
    parser.add_argument("--test-rows", type=int, default=200, help="of each task")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    loaded = load_checkpoint(given.checkpoint, device=resolve_device(given.device))
    model, (recipe, corpus) = loaded.model, own_corpus(loaded, given.checkpoint)
    device, found = next(model.parameters()).device, projections(model)
    clean = clean_rows(corpus, recipe).to(device)
    clean = clean.take(shuffled(clean, recipe.seed))
    tests = concatenate([Rows.of(ids[: given.test_rows]) for ids in corpus.tests.values()]).to(device)
    judge = Judge(tests, Performance("accuracy", lambda rows: scored(corpus, recipe, rows)))
    made = {}
    for count in given.rows:
        rows = clean.take(torch.arange(min(count, len(clean)), device=device))
        made[count] = moments(model, rows, found, objectives_of("sampled", torch.Generator().manual_seed(0)))
    before = judge.measure(model)
    for of_a, of_g in product(given.rows, repeat=2):
        spectra = [Spectrum.of(Moments(a.A_QQ, g.G_PP)) for a, g in zip(made[of_a], made[of_g], strict=True)]
        for rho in given.rho:
            edited = deepcopy(model)
            for projection, spectrum in zip(found, spectra, strict=True):
                changed = by_curvature(projection.weight_PQ(), spectrum, spectrum.count(rho), torch.Generator())
                edited.get_parameter(projection.name).data.copy_(changed.T if projection.transposed else changed)
            record = {"checkpoint": given.checkpoint.name, "A_rows": of_a, "G_rows": of_g, "rho": rho}
            print(json.dumps(record | {"accuracy": judge.measure(edited), "before": before}), flush=True)


if __name__ == "__main__":
    main()
