"""Whether what is found on small trained models carries over: do methods rank alike, and do the small models' options serve elsewhere?

    python benchmarks/carry_over.py --small docs/table1.parquet --other NeoX sweeps/neox-14m --other SmolLM2 sweeps/smollm2

A run's score is that of the paper's A.3.5 (lower is better; -100 is perfect): M - P with accuracy, M + P + t with perplexity. Of the small
models (stored rows, artifact noise, protocol paper) a method's score is the mean over them at the options that are best in the mean. Of
another model, the last by name of its sweep, it is the best of the sweep, and beside it that at the small models' options, if those were
run. Methods that a model lacks are left out of its rank correlation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.localization.agreement import over_scorers
from tinymem.report.selection import Candidate, score
from tinymem.results.collect import load_results
from tinymem.results.row import MeasuredRow, MitigationRow
from tinymem.zoo.stored import stored_rows

Scores = dict[str, dict[str, float]]
"""Method -> options as JSON -> score."""
FEWEST = 4
LIMIT = 500.0
"""The paper's: runs with a perplexity from here on are left out."""


def score_of(row: MitigationRow) -> float | None:
    """The score of a run; None where nothing was measured, or nothing was memorized."""
    if row.status != "ok" or not row.memorized_before or row.memorized_after is None or row.performance_after is None:
        return None
    if row.performance_metric == "perplexity" and not row.performance_after < LIMIT:
        return None
    scale = 1.0 if row.performance_metric == "perplexity" else 100.0
    before, after = row.performance_before or 0.0, row.performance_after
    candidate = Candidate(100 * row.memorized_before, 100 * row.memorized_after, scale * before, scale * after, row.performance_metric)  # type: ignore[arg-type]
    return score(candidate)


def scores_of(rows: Iterable[MeasuredRow]) -> Scores:
    """Mean scores over models by method and options; options that some model lacks are left out."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    models = set()
    for row in rows:
        if isinstance(row, MitigationRow) and (value := score_of(row)) is not None:
            model = str(row.model_id)
            models.add(model)
            found[row.method][json.dumps(row.options, sort_keys=True)][model] = value
    return {
        method: {options: mean(by_model.values()) for options, by_model in tried.items() if by_model.keys() == models}
        for method, tried in found.items()
    }


def best_of(tried: dict[str, float]) -> tuple[str, float]:
    """Options and score of the best run."""
    return min(tried.items(), key=lambda pair: pair[1])


def cell(tried: dict[str, float], options: str) -> str:
    """Score at the small models' options, and the best with its own."""
    own, value = best_of(tried)
    return f"{tried[options]:.1f} | {value:.1f} `{own}`" if options in tried else f"- | {value:.1f} `{own}`"


def draw(path: Path, small: Scores, others: dict[str, Scores]) -> None:
    """A point for each method and other model: its best score there over that on the small models."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    for marker, (name, scores) in zip("osv^", others.items(), strict=False):
        methods = [method for method in small if scores.get(method)]
        points = [(best_of(small[method])[1], min(100.0, best_of(scores[method])[1])) for method in methods]
        axes.scatter(*zip(*points, strict=True), marker=marker, label=name)
        for method, point in zip(methods, points, strict=True):
            axes.annotate(method, point, textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set_xlabel("best score on the small models (-100: all forgotten at no cost)")
    axes.set_ylabel("best score on the other model, at most 100")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, required=True, help="stored rows of the small models (Parquet)")
    parser.add_argument("--figure", type=Path, help="a picture (.png): each method's best score on the small models and elsewhere")
    parser.add_argument("--other", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"), help="a sweep of another model")
    given = parser.parse_args()
    small = scores_of(row for row in stored_rows(given.small) if row["artifact"] == "noise" and row["protocol"] == "paper")
    small = {method: tried for method, tried in small.items() if tried}
    others: dict[str, Scores] = {}
    for name, folder in given.other:
        rows = [row for row in load_results([Path(folder)]).rows if isinstance(row, MitigationRow)]
        last = max(str(row.run) for row in rows)
        others[name] = scores_of(row for row in rows if str(row.run) == last)
    print("| method | small models: best | " + " | ".join(f"{name}: at these options | {name}: best" for name in others) + " |")
    print("|" + " --- |" * (2 + 2 * len(others)))
    for method in sorted(small, key=lambda name: best_of(small[name])[1]):
        options, value = best_of(small[method])
        cells = [cell(tried, options) if (tried := scores.get(method)) else "- | -" for scores in others.values()]
        print(f"| {method} | {value:.1f} `{options}` | {' | '.join(cells)} |")
    if given.figure:
        draw(given.figure, small, others)
    groups = {"small models": small, **others}
    names = list(groups)
    for one, other in ((a, b) for k, a in enumerate(names) for b in names[k + 1 :]):
        shared = sorted(method for method in groups[one].keys() & groups[other].keys() if groups[one][method] and groups[other][method])
        if len(shared) < FEWEST:
            print(f"\n{one} and {other}: too few methods for a rank correlation: {', '.join(shared) or 'none'}")
            continue
        values = [np.array([best_of(groups[name][method])[1] for method in shared]) for name in (one, other)]
        rho = over_scorers(*values)
        print(f"\n{one} and {other}: rho {rho.rho:.2f} ({rho.low:.2f} to {rho.high:.2f}), {len(shared)} methods: {', '.join(shared)}")


if __name__ == "__main__":
    main()
