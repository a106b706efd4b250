"""Whether what is found on small trained models carries over: do methods rank alike, and do the small models' options serve elsewhere?

    python benchmarks/carry_over.py --other neox-14m --other smollm2-135m --figure docs/carry-over.png

A run's score is that of the paper's A.3.5 (lower is better; -100 is perfect): M - P with accuracy, M + P + t with perplexity, here without
the limit of perplexity, which would leave nothing to rank where all edits are above it: such runs are marked. Of the small models (stored
rows, artifact noise, protocol paper) a method's score is the mean over them at the options that are best in the mean. Of another model
(`--rows`, by the name in its rows), at the last step that is there, it is that at the small models' options, and that of the best of its
search. Methods that a model lacks are left out of its rank correlation; its 95 % interval is over methods. The ranking of the paper's
Table 3 (its best runs on Pythia-6.9B) stands beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tinymem.localization.agreement import over_scorers
from tinymem.report.published import published
from tinymem.report.selection import PERPLEXITY_LIMIT, Candidate, score
from tinymem.results.collect import results_of
from tinymem.results.row import MeasuredRow, MitigationRow
from tinymem.results.step import series_of
from tinymem.zoo.stored import stored_rows

Scores = dict[str, dict[str, tuple[float, bool]]]
"""Method -> options as JSON -> score, and whether the perplexity is above the limit."""
FEWEST = 4
SMALL = (Path("docs/table1.parquet"), Path("docs/leaderboard.parquet"))


def score_of(row: MitigationRow) -> float | None:
    """The score of a run; None where nothing was measured, or nothing was memorized."""
    if row.status != "ok" or not row.memorized_before or row.memorized_after is None or row.performance_after is None:
        return None
    scale = 1.0 if row.performance_metric == "perplexity" else 100.0
    before, after = row.performance_before or 0.0, row.performance_after
    candidate = Candidate(100 * row.memorized_before, 100 * row.memorized_after, scale * before, scale * after, row.performance_metric)  # type: ignore[arg-type]
    found = score(candidate)
    return found if math.isfinite(found) else None


def is_above(row: MitigationRow) -> bool:
    """Whether the paper would leave the run out for its perplexity."""
    return row.performance_metric == "perplexity" and not (row.performance_after or math.inf) < PERPLEXITY_LIMIT


def scores_of(rows: Iterable[MeasuredRow]) -> Scores:
    """Mean scores over models by method and options; options that some model lacks are left out."""
    found: dict[str, dict[str, dict[str, tuple[float, bool]]]] = defaultdict(lambda: defaultdict(dict))
    models = set()
    for row in rows:
        if isinstance(row, MitigationRow) and (value := score_of(row)) is not None:
            model = str(row.model_id)
            models.add(model)
            found[row.method][json.dumps(row.options, sort_keys=True)][model] = value, is_above(row)
    means = {
        method: {
            options: (mean(value for value, _ in by_model.values()), any(above for _, above in by_model.values()))
            for options, by_model in tried.items()
            if by_model.keys() == models
        }
        for method, tried in found.items()
    }
    return {method: tried for method, tried in means.items() if tried}


def last_of(rows: Iterable[MeasuredRow], name: str) -> list[MitigationRow]:
    """The rows of a model at its last step."""
    own = [row for row in rows if isinstance(row, MitigationRow) and series_of(row.model_name or "") == name]
    if not own:
        raise SystemExit(f"expected rows of a model named {name}, found none")
    last = max(row.step or 0 for row in own)
    return [row for row in own if (row.step or 0) == last]


def best_of(tried: dict[str, tuple[float, bool]]) -> str:
    """Options of the best run."""
    return min(tried, key=lambda options: tried[options][0])


def written(value: tuple[float, bool]) -> str:
    """A score, with a star above the limit of perplexity."""
    return f"{value[0]:,.1f}{'*' if value[1] else ''}"


def short(options: str) -> str:
    """Options as `ratio 0.01, epochs 10`."""
    return ", ".join(f"{key} {value:g}" for key, value in sorted(json.loads(options).items(), reverse=True)) or "as they are"


def cells(tried: dict[str, tuple[float, bool]], options: str) -> str:
    """Score at the small models' options; the best with its own, and of how many."""
    own = best_of(tried)
    there = written(tried[options]) if options in tried else "not run"
    return f"{there} | {written(tried[own])} ({short(own)}; of {len(tried)})"


def print_table(small: Scores, others: dict[str, Scores]) -> None:
    """A line of Markdown for each method, the best of the small models first."""
    print("| method | small models: best | " + " | ".join(f"{name}: at these options | {name}: best" for name in others) + " |")
    print("|" + " --- |" * (2 + 2 * len(others)))
    for method in sorted(small, key=lambda name: small[name][best_of(small[name])][0]):
        options = best_of(small[method])
        parts = [cells(tried, options) if (tried := scores.get(method)) else "not run | not run" for scores in others.values()]
        print(f"| {method} | {small[method][options][0]:.1f} ({short(options)}) | {' | '.join(parts)} |")


def at_best(scores: Scores) -> dict[str, float]:
    """Each method's best score."""
    return {method: tried[best_of(tried)][0] for method, tried in scores.items()}


def published_scores(name: str = "pythia-6.9b") -> dict[str, float]:
    """Scores of the best runs in the paper's Table 3."""
    [model] = [entry for entry in published() if ("model_name", name) in entry.columns]
    before = model.rows["none"]
    return {
        method: score(Candidate(before.memorized, row.memorized, before.performance or 0.0, row.performance or 0.0, model.metric))
        for method, row in model.rows.items()
        if method != "none"
    }


def at_options_of(small: Scores, scores: Scores) -> dict[str, float]:
    """Each method's score at the small models' best options, of those that were run so."""
    chosen = {method: best_of(tried) for method, tried in small.items()}
    return {method: scores[method][options][0] for method, options in chosen.items() if options in scores.get(method, {})}


def print_agreement(one: str, other: str, first: dict[str, float], second: dict[str, float]) -> None:
    """A line with Spearman's rho over the methods that both have."""
    shared = sorted(first.keys() & second.keys())
    if len(shared) < FEWEST:
        print(f"{one} and {other}: too few methods for a rank correlation: {', '.join(shared) or 'none'}")
        return
    rho = over_scorers(*(np.array([values[method] for method in shared]) for values in (first, second)))
    print(f"{one} and {other}: rho {rho.rho:.2f} ({rho.low:.2f} to {rho.high:.2f}), {len(shared)} methods")


def draw(path: Path, small: Scores, others: dict[str, Scores]) -> None:
    """A panel for each other model: each method's score there over that on the small models, at their options and at the best found."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(others), figsize=(6.2 * len(others), 5), squeeze=False, layout="constrained")
    ours = at_best(small)
    for axes, (name, scores) in zip(panels[0], others.items(), strict=True):
        best, same = at_best(scores), at_options_of(small, scores)
        for method in sorted(best.keys() & ours.keys()):
            axes.plot([ours[method]] * 2, [best[method], same.get(method, best[method])], color="0.75", linewidth=0.8, zorder=1)
            axes.annotate(method, (ours[method], best[method]), textcoords="offset points", xytext=(5, -9), fontsize=7)
        for label, values, marker in (("best of its own search", best, "o"), ("small models' options", same, "x")):
            methods = sorted(values.keys() & ours.keys())
            axes.scatter([ours[m] for m in methods], [values[m] for m in methods], marker=marker, label=label, zorder=2)
        axes.set_yscale("symlog", linthresh=120)
        axes.set(title=name, xlabel="score on the small models (−100: all forgotten at no cost)", ylabel="score here; lower is better")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def write_report(folder: Path, rows: list[MeasuredRow]) -> None:
    """Tables and figures of rows, as `tinymem report` writes them."""
    from tinymem.report.tables.catalogue import tables_of
    from tinymem.report.write import write_all

    results = results_of(rows)
    write_all(results, tables_of(results), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, nargs="+", default=SMALL, help="stored rows of the small models (Parquet)")
    parser.add_argument("--rows", type=Path, default=Path("docs/carry-over.parquet"), help="stored rows of the other models")
    parser.add_argument("--other", action="append", default=[], metavar="NAME", help="another model, by its name without the step")
    parser.add_argument("--figure", type=Path, help="a picture (.png): each method's score on the small models and elsewhere")
    parser.add_argument("--report", type=Path, help="a new folder: the report of the other models, as of their sweeps")
    given = parser.parse_args()
    known = [row for path in given.small for row in stored_rows(path)]
    small = scores_of(row for row in known if row["artifact"] == "noise" and row["protocol"] == "paper")
    rows = stored_rows(given.rows)
    others = {name: scores_of(last_of(rows, name)) for name in given.other}
    print_table(small, others)
    print("\nSpearman's rho of best scores, 95 % interval over methods:\n")
    best = {"small models": at_best(small)} | {name: at_best(scores) for name, scores in others.items()}
    best["Pythia-6.9B in the paper"] = published_scores()
    for one, other in combinations(best, 2):
        print_agreement(one, other, best[one], best[other])
    print("\nThe same with the other model at the small models' options:\n")
    for name, scores in others.items():
        print_agreement("small models", name, at_best(small), at_options_of(small, scores))
    if given.figure:
        draw(given.figure, small, others)
    if given.report:
        write_report(given.report, rows)


if __name__ == "__main__":
    main()
