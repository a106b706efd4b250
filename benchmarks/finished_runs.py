"""Finished runs, for the tables of this folder: what each one was, and how it ended."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finished:
    """A run with its checkpoint's `tinymem.json` and its curve."""

    folder: Path
    facts: dict[str, Any]
    curve: list[dict[str, Any]]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.facts["recipe"]

    @property
    def seed(self) -> int:
        return self.recipe["seed"]

    @property
    def label(self) -> str:
        """The run's name without its seed."""
        return re.sub(r"-?seed\d+", "", self.recipe["name"])

    def memorized(self, kind: str = "noise") -> float:
        """In percent, at the end."""
        return 100 * (self.facts["metrics"]["memorized"][kind]["share"] or 0.0)

    def memorized_by_epoch(self, kind: str = "noise") -> dict[int, float]:
        """In percent, at each measured epoch after the first."""
        points = [point for point in self.curve if point["epoch"]]
        return {point["epoch"]: 100 * (point["memorized"][kind]["share"] or 0.0) for point in points}

    @property
    def accuracy(self) -> float:
        """In percent, at the end."""
        return 100 * self.facts["metrics"]["accuracy"]

    @property
    def milliseconds(self) -> float:
        """A step's, the median over the measured epochs after the first (in which kernels are compiled)."""
        tokens = self.recipe["training"]["batch_size"] * self.recipe["data"]["row_tokens"]
        speeds = [point["tokens_per_second"] for point in self.curve[1:] if point["tokens_per_second"]]
        return 1e3 * tokens / statistics.median(speeds[1:] or speeds)


def finished(folder: Path, kind: str = "noise") -> list[Finished]:
    """The finished runs under a folder that have artifacts of a kind, by name and seed."""
    found = []
    for path in sorted(folder.glob("*/checkpoint/tinymem.json")):
        facts, run = json.loads(path.read_text(encoding="utf-8")), path.parents[1]
        lines = (run / "training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        if kind in facts["metrics"]["memorized"]:
            found.append(Finished(run, facts, [json.loads(line) for line in lines]))
    return sorted(found, key=lambda run: (run.label, run.seed))


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation between seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"
