"""Runs for the leaderboard: those of a user's method on the shipped checkpoints, and a sample of the stored ones once more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.method import Method
from tinymem.recipe.sweep import SweepRecipe
from tinymem.registry import load_plugin
from tinymem.report.tolerance import Tolerance, tolerance_of
from tinymem.results.collect import load_results
from tinymem.results.row import MeasuredRow
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import content_id
from tinymem.runtime.json import Json
from tinymem.runtime.progress import Progress
from tinymem.sweep.run import local_engine, open_sweep, run_sweep
from tinymem.zoo.leaderboard import COMPARED, Standing
from tinymem.zoo.reproduction import comparable
from tinymem.zoo.stored import lean


@dataclass(frozen=True)
class Place:
    """Where the runs of a leaderboard are made.

    Attributes:
        zoo: folder of the checkpoints.
        sweeps: folder of the sweeps.
        device: as `tinymem sweep` takes it.
        jobs: processes at a time, as `tinymem sweep` takes it.
        progress: where progress is shown.
    """

    zoo: Path
    sweeps: Path
    device: str = "auto"
    jobs: int | None = None
    progress: Progress | bool = True

    def rows(self, recipe: SweepRecipe, plugins: Sequence[Path] = ()) -> list[MeasuredRow]:
        """The rows of a sweep, once it has done what is left of it."""
        place, folder = resolve_device(self.device), self.sweeps / recipe.name
        sweep = open_sweep(recipe, out=folder, runs=Path("runs"), device_type=place.partition(":")[0], plugins=plugins)
        run_sweep(sweep, local_engine(place, self.jobs), progress=self.progress)
        planned = {run.id for group in sweep.plan.groups for run in group.runs}
        return [row for row in load_results([folder]).rows if row.id in planned]


def submitted(plugin: Path, names: Sequence[str], place: Place) -> list[MeasuredRow]:
    """Rows of the methods that a user's file registers, each over its own grid, on the named checkpoints.

    Raises:
        UserError: the file registers no method, or none of its runs has a result.
    """
    before = set(UNLEARNERS.names())
    sha256 = load_plugin(plugin).sha256
    methods = sorted(set(UNLEARNERS.names()) - before)
    if not methods:
        raise UserError(f"expected a new method in {plugin}, found none; `tinymem new method NAME` writes a first one")
    recipe = SweepRecipe(
        name=f"leaderboard-{plugin.stem}-{sha256[:8]}",
        checkpoints=tuple(str(place.zoo / name) for name in names),
        methods=tuple(Method(name=method) for method in methods),
    )
    rows = place.rows(recipe, [plugin])
    if not any(row.is_ok for row in rows):
        raise UserError(f"expected results of {', '.join(methods)}, got none: {rows[0].message}; try it with `tinymem mitigate` first")
    return [lean(row) for row in rows]


@dataclass(frozen=True)
class Repeated:
    """One number of a line that was run again."""

    checkpoint: str
    line: Standing
    column: str
    stored: Json
    found: Json
    tolerance: Tolerance

    @property
    def is_within(self) -> bool:
        """Whether the found number is the stored one, within its tolerance."""
        return self.tolerance.allows(self.stored, self.found)


def sample(found: Mapping[str, Sequence[Standing]], count: int, seed: int, seconds: float) -> list[tuple[str, Standing]]:
    """Lines drawn by seed among those of our own methods that took no longer than some seconds: as many as there are, up to `count`."""
    lines = [(name, line) for name, best in found.items() for line in best if not line.row.plugin and (line.row.seconds or 0) <= seconds]
    return Random(seed).sample(lines, min(count, len(lines)))


def repeated(chosen: Iterable[tuple[str, Standing]], place: Place) -> Iterator[Repeated]:
    """Yield the compared numbers of each line, run again.

    Raises:
        UserError: a run has no result any more.
    """
    for name, line in chosen:
        row = line.row
        method = Method(name=row.method, options=row.options)
        key = content_id([row.weights, row.method, row.options])
        recipe = SweepRecipe(name=f"leaderboard-check-{key}", checkpoints=(str(place.zoo / name),), methods=(method,), grid="none")
        again = next((other for other in map(comparable, place.rows(recipe)) if other.artifact == row.artifact), None)
        if again is None or not again.is_ok:
            raise UserError(f"expected a result of {line.name} on {name}, got {again.message if again else 'no row'}; see {place.sweeps}")
        yield from (Repeated(name, line, c, stored, again[c], tolerance_of(c, ())) for c in COMPARED if (stored := row[c]) is not None)
