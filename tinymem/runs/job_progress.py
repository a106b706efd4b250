"""Progress of many runs: a line for each that ends, with an estimate of the time that the others will take."""

from __future__ import annotations

import time
from pathlib import Path

from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import training_flops
from tinymem.runs.pipeline import curve_of
from tinymem.runtime.streams import echo
from tinymem.runtime.words import counted, duration

EVERY_SECONDS = 600.0


class JobProgress:
    """Counter of runs, with an estimate of the time left from the work done since the start (of running ones by their measured epochs)."""

    def __init__(self, runs: Path, pending: list[Recipe], verb: str, *, found: int) -> None:
        self.runs, self.count, self.done, self.failed = runs, len(pending), 0, 0
        self.before = {recipe.name: self._done_of(recipe) for recipe in pending}
        self.total = sum(training_flops(recipe) for recipe in pending) - sum(self.before.values())
        self.flops_done = 0.0
        self.started = self.last = time.monotonic()
        self._say(f"{counted(found + len(pending), 'run')}, {found} finished before, {len(pending)} to {verb}")

    def ended(self, recipe: Recipe, seconds: float, running: list[Recipe], *, failed: str | None) -> None:
        """Print the outcome of a run."""
        self.done += 1
        self.failed += failed is not None
        flops = self._flops_of(recipe) if failed is not None else training_flops(recipe) - self.before[recipe.name]
        self.flops_done += flops
        self.total += flops - (training_flops(recipe) - self.before[recipe.name])  # the rest of a failed run is never done
        curve = curve_of(self.runs, recipe)
        what = f"FAILED: {failed}" if failed is not None else curve[-1].note if curve else "done"
        self._say(f"[{self.done}/{self.count}] {recipe.name}: {what} ({duration(seconds)}); {self._rest(running)}")

    def now_and_then(self, running: list[Recipe]) -> None:
        """Print a line every ten minutes while no run ends."""
        if time.monotonic() - self.last >= EVERY_SECONDS:
            self._say(f"[{self.done}/{self.count}] {self._rest(running)}")

    def _rest(self, running: list[Recipe]) -> str:
        flops = self.flops_done + sum(self._flops_of(recipe) for recipe in running)
        left = (self.total - flops) * (time.monotonic() - self.started) / flops if flops > 0 else None
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{len(running)} running, {failed}{'time left not known yet' if left is None else f'{duration(left)} left'}"

    def _flops_of(self, recipe: Recipe) -> float:
        """Training operations (FLOP) that a run has done since the start."""
        return self._done_of(recipe) - self.before[recipe.name]

    def _done_of(self, recipe: Recipe) -> float:
        curve = curve_of(self.runs, recipe)
        return training_flops(recipe) * curve[-1].epoch / max(1, recipe.training.epochs) if curve else 0.0

    def _say(self, text: str) -> None:
        self.last = time.monotonic()
        echo(text, err=True)
