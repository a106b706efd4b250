"""Result rows made by hand, with all columns that reports read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tinymem.results.curve import CurvePoint, write_curve
from tinymem.results.read import read_measured
from tinymem.results.row import MeasuredRow, Status

Values = dict[str, Any]
RECIPE: Values = {
    "name": "math-noise",
    "seed": 1,
    "protocol": "paper",
    "data": {"kind": "math", "family": "additive", "size": 3000},
    "artifacts": [{"kind": "noise", "rows": 1000}],
    "model": {"n_layer": 2},
    "training": {"epochs": 20, "batch_size": 128, "regularizers": []},
    "evaluation": {"prompt": 50, "match": 50},
}
COLUMNS_OF_RECIPE = ("data", "data_size", "n_layer", "epoch", "regularizer", "family")
CURVE = [
    CurvePoint(0, accuracy=0.1, accuracy_ceiling=0.97, perplexity=9.0, seconds=0.0),
    CurvePoint(
        20,
        accuracy=0.9,
        accuracy_ceiling=0.97,
        perplexity=1.2,
        seconds=60.0,
        memorized={"noise": {"share": 0.5, "count": 5, "rows": 10}},
    ),
]


def make_row(method: str, artifact: str = "noise", after: int = 0, performance: float | None = 0.95, **changes: Any) -> MeasuredRow:
    """A row of a 4-layer model: 40 of 100 rows memorized, then `after`; accuracy 0.97, then `performance`."""
    model = "-".join(str(changes.get(key)) for key in ("seed", "n_layer", "data", "regularizer"))
    row: Values = {
        "run": f"r-{changes.get('seed', 0)}",
        "model_id": f"{artifact}-{model}",
        "family": "f",
        "data": "multiplicative",
        "data_size": 3000,
        "n_layer": 4,
        "n_parameters": 814_336,
        "epoch": 3500 if artifact == "noise" else 500,
        "regularizer": None,
        "seed": 0,
        "protocol": "paper",
        "device": "cpu (2 threads)",
        "device_type": "cpu",
        "method": method,
        "options": {},
        "config": {},
        "artifact": artifact,
        "status": "ok",
        "message": None,
        "rows_scored": 100,
        "memorized_count_before": 40,
        "memorized_count_after": after,
        "performance_metric": "accuracy",
        "performance_before": 0.97,
        "performance_after": performance,
        "performance_ceiling": 0.98,
        "seconds": 1.0,
        "peak_mb": 100.0,
    }
    row |= changes
    for when in ("before", "after"):
        count = row[f"memorized_count_{when}"]
        row.setdefault(f"memorized_{when}", None if count is None else count / row["rows_scored"])
    seed, options = row["seed"], json.dumps(row["options"], sort_keys=True)
    name = f"{method}{options}{row['data']}{row['epoch']}s{seed}{row['protocol']}".translate(CLEAN)
    return read_measured({"id": name, **row}, "make_row")


CLEAN = str.maketrans("", "", '{}": ,')


def without_result(method: str, artifact: str = "noise", status: Status = "refused", **changes: Any) -> MeasuredRow:
    """A row of a method that has none."""
    row = make_row(method, artifact, 0, None, **changes)
    return replace(row, status=status, message="why", memorized_count_after=None, memorized_after=None, seconds=None)


def paper_like_rows(seeds: tuple[int, ...] = (0, 1, 3)) -> list[MeasuredRow]:
    """Several methods with several options on noise and backdoor models, over seeds."""
    outcomes: dict[str, list[tuple[Values, int, float, float]]] = {
        "finetune-extra": [({}, 0, 0.969, 25.0)],
        "finetune-clean": [({}, 0, 0.88, 2.7)],
        "act": [({"ratio": 0.01}, 20, 0.96, 0.3), ({"ratio": 0.05}, 0, 0.87, 0.3)],
        "zero": [({"ratio": 0.01}, 39, 0.969, 33.0)],
        "balanced-subnet": [({"ratio": 0.1}, 1, 0.961, 6.0), ({"ratio": 0.3}, 0, 0.9685, 55.0)],
    }
    return [
        make_row(method, artifact, after + (seed if after else 0), accuracy, seed=seed, options=options, config=options, seconds=seconds)
        for method, found in outcomes.items()
        for options, after, accuracy, seconds in found
        for artifact in ("noise", "backdoor")
        for seed in seeds
    ] + [without_result("hard-concrete", artifact, seed=seed) for artifact in ("noise", "backdoor") for seed in seeds]


def write_results(folder: Path, rows: Sequence[MeasuredRow]) -> Path:
    """A folder of result files, one a run."""
    (folder / "results").mkdir(parents=True)
    for row in rows:
        path = folder / "results" / f"{row.id}.json"
        known = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*known, row.as_dict()]))
    return folder


def write_run(folder: Path, rows: Sequence[MeasuredRow], recipe: Values, curve: list[CurvePoint]) -> Path:
    """A run's folder."""
    (folder / "training").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    if rows:
        (folder / "results.jsonl").write_text("".join(json.dumps(row.as_dict()) + "\n" for row in rows))
    write_curve(folder / "training" / "metrics.jsonl", curve)
    return folder


def bare_row(method: str, **changes: Any) -> MeasuredRow:
    """A row that leaves what its model is to the recipe of its run."""
    return replace(make_row(method, seed=1, **changes), **dict.fromkeys(COLUMNS_OF_RECIPE))
