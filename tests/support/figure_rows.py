"""Made-up result rows and training curves with the columns of real ones, of as many models as a test asks for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinymem.recipe.recipe import Recipe, dump_recipe, parse_recipe
from tinymem.results.curve import CurvePoint, write_curve
from tinymem.results.nested import LayersColumn
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow
from tinymem.results.share import ShareColumn
from tinymem.runtime.json import JsonObject

# Per method: what it edits, its options, and what is left of memorization and lost of performance by the best of them (shares).
METHODS: dict[str, tuple[str, list[dict[str, Any]], float, float]] = {
    "finetune-extra": ("model", [{}], 0.1, 0.001),
    "act": ("neuron", [{"ratio": 0.01}, {"ratio": 0.05}], 0.3, 0.08),
    "zero": ("neuron", [{"ratio": 0.01}], 0.8, 0.03),
    "durable": ("weight", [{"ratio": 0.01}, {"ratio": 0.001}], 0.2, 0.05),
    "balanced-subnet": ("weight", [{"ratio": 0.05}, {"ratio": 0.1}], 0.02, 0.01),
}
LAYER_NEURONS, LAYER_WEIGHTS = 512, 131_712


def row(method: str = "act", artifact: str = "noise", *, before: float = 0.5, after: float = 0.25, **changes: Any) -> MeasuredRow:
    """One result row; `before` and `after` are the shares memorized, of 100 rows."""
    made: dict[str, Any] = {
        "run": "run-1", "model_id": "m1", "method": method, "unit": METHODS.get(method, ("model",))[0], "options": {"ratio": 0.05},
        "config": {"ratio": 0.05}, "seed": 0, "protocol": "paper", "artifact": artifact, "status": "ok", "message": None,
        "data": "additive", "data_size": 3000, "n_layer": 4, "n_parameters": 814_336, "epoch": 500, "regularizer": None,
        "model_name": "additive 3000, 4 layers", "rows_scored": 100, "rows_forget": 25, "rows_holdout": 25,
        "memorized_before": before, "memorized_after": after, "performance_metric": "accuracy", "performance_before": 0.96,
        "performance_after": 0.94, "performance_ceiling": 0.975, "seconds": 1.5, "peak_mb": 500.0, "edited_parameters": 1000,
    }  # fmt: skip
    made.update(changes)
    made.setdefault(
        "id", "-".join(str(made[k]) for k in ("method", "data", "data_size", "n_layer", "epoch", "seed")) + f"-{made['options']}"
    )
    for when in ("before", "after"):
        share = made[f"memorized_{when}"]
        made.setdefault(f"memorized_count_{when}", None if share is None else round(share * made["rows_scored"]))
    return read_measured(made, "row")


def by_layer(n_layer: int, neurons: float, weights: float) -> LayersColumn:
    """The column `edited_by_layer` of an edit that zeroes these shares of every block, more in higher blocks."""
    slope = [2 * (i + 1) / (n_layer + 1) for i in range(n_layer)]
    return {
        "neurons": [round(neurons * LAYER_NEURONS * s) for s in slope], "of_neurons": [LAYER_NEURONS] * n_layer,
        "weights": [round(weights * LAYER_WEIGHTS * s) for s in slope], "of_weights": [LAYER_WEIGHTS] * n_layer,
        "changed": [round(weights * LAYER_WEIGHTS * s) for s in slope], "elsewhere": 0,
    }  # fmt: skip


def sweep_rows(
    data: tuple[str, ...] = ("additive", "multiplicative", "wiki"),
    layers: tuple[int, ...] = (2, 4, 8, 16),
    epochs: tuple[int, ...] = (500, 1500, 2500, 3500),
    seeds: tuple[int, ...] = (0, 1, 2),
    sizes: tuple[int, ...] = (3000, 20_000),
) -> Iterator[MeasuredRow]:
    """Rows of all methods and options on models of all these kinds."""
    for kind, n_layer, epoch, seed, artifact in itertools.product(data, layers, epochs, seeds, ("noise", "backdoor")):
        for size in (None,) if kind == "wiki" else sizes:
            for method, (unit, options, left, lost) in METHODS.items():
                for i, option in enumerate(options):
                    ratio = option.get("ratio", 0.0)
                    before = 0.3 + 0.05 * layers.index(n_layer) + 0.02 * seed + 0.3 * (artifact == "backdoor")
                    kept = min(1.0, left * (1 + i) * (1 + 0.1 * epochs.index(epoch)) * (1 + 0.03 * seed))
                    harm = lost * (1 + i) * (2 if kind == "wiki" else 1) * (1 + 0.4 * layers.index(n_layer)) * (1 + 0.1 * seed)
                    text = kind == "wiki"
                    yield row(
                        method, artifact, before=before, after=before * kept, options=option, config=option, unit=unit, data=kind,
                        data_size=size, n_layer=n_layer, epoch=epoch, seed=seed, model_id=f"{kind}-{size}-{n_layer}-{seed}",
                        performance_metric="perplexity" if text else "accuracy", performance_before=30.0 if text else 0.96,
                        performance_after=30.0 * (1 + 4 * harm) if text else 0.96 * (1 - harm), seconds=100.0 if unit == "model" else 1.5,
                        edited_by_layer=by_layer(n_layer, ratio if unit == "neuron" else 0, ratio),
                    )  # fmt: skip


def recipe(data: str = "additive", size: int = 3000, n_layer: int = 4, seed: int = 0, regularizer: str | None = None) -> Recipe:
    """The recipe of a model."""
    text = {"kind": "wiki", "config": "wikitext-103-raw-v1", "row_tokens": 150}
    corpus = text if data == "wiki" else {"kind": "math", "family": data, "size": size, "row_tokens": 150}
    training = {"epochs": 40, "regularizers": [{"kind": regularizer}] if regularizer else []}
    return parse_recipe({
        "name": "made-up", "seed": seed, "protocol": "paper", "data": corpus, "artifacts": [{"kind": "noise"}, {"kind": "backdoor"}],
        "model": {"n_layer": n_layer}, "training": training, "evaluation": {"prompt": 50, "match": 50},
    })  # fmt: skip


def curve(slowness: float = 10.0, text: bool = False, copies: tuple[int, ...] = ()) -> list[CurvePoint]:
    """A training curve whose memorized share rises to 1 with the epochs."""
    points = []
    for epoch in (10, 20, 30, 40):
        share = 1 - 2 ** (-epoch / slowness)
        classes = {str(c): of_hundred(share * (1 - 0.5**i)) for i, c in enumerate(copies)}
        points.append(
            CurvePoint(
                epoch,
                accuracy=None if text else 0.9,
                accuracy_ceiling=None if text else 0.975,
                perplexity=200 / epoch,
                memorized={"noise": of_hundred(share), "backdoor": {"share": 1.0, "count": 9, "rows": 9}},
                memorized_by_copies={"noise": classes} if copies else {},
            )
        )
    return points


def of_hundred(share: float) -> ShareColumn:
    return {"share": share, "count": round(100 * share), "rows": 100}


def write_run(folder: Path, rows: Iterable[MeasuredRow], points: list[CurvePoint], about: Recipe | None = None) -> Path:
    """A run's folder as reports read it."""
    (folder / "training").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(about or recipe()))
    (folder / "results.jsonl").write_text("".join(json.dumps(r.as_dict()) + "\n" for r in rows))
    write_curve(folder / "training" / "metrics.jsonl", points)
    return folder


def write_sweep(folder: Path, rows: Iterable[MeasuredRow]) -> Path:
    """A folder of result files, one per run."""
    (folder / "results").mkdir(parents=True)
    by_id: dict[str, list[JsonObject]] = {}
    for r in rows:
        by_id.setdefault(r.id, []).append(r.as_dict())
    for i, same in enumerate(by_id.values()):
        (folder / "results" / f"{i:05d}.json").write_text(json.dumps(same))
    return folder
