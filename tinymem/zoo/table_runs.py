"""The sweeps behind a reproduced table: its recipes, then the chosen runs once more with the tests of robustness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tinymem.recipe.evaluation import Robustness
from tinymem.recipe.method import Method
from tinymem.recipe.sweep import SweepRecipe, load_sweep
from tinymem.report.configuration import row_scores
from tinymem.results.collect import load_results
from tinymem.results.row import MeasuredRow
from tinymem.runtime.device import resolve_device
from tinymem.runtime.progress import Progress
from tinymem.sweep.contest import search
from tinymem.sweep.run import local_engine, open_sweep, run_sweep
from tinymem.zoo.reproduction import Reproduction, reproductions

TableName = Literal["table1", "table2"]
RECIPES: dict[TableName, tuple[str, ...]] = {
    "table1": ("table1.yaml", "table1-reference.yaml"),
    "table2": ("table2.yaml", "table2-reference.yaml"),
}
TITLES: dict[TableName, str] = {"table1": "Table 1", "table2": "Table 2"}


def run_table(
    table: TableName, recipes: Path, out: Path, device: str, jobs: int | None = None, progress: Progress | bool = True
) -> list[MeasuredRow]:
    """Do what is left of a table's sweeps; returns all rows.

    Args:
        table: which one.
        recipes: folder of its recipes.
        out: folder of the sweeps.
        device: as `tinymem sweep` takes it.
        jobs: processes at a time, as `tinymem sweep` takes it.
        progress: as of `tinymem.run`.

    Raises:
        UserError: as `open_sweep`.
        Stopped: a signal came; the same call goes on.
    """
    own, *others = (load_sweep(recipes / name) for name in RECIPES[table])
    place = resolve_device(device)
    folders = [_run(sweep, out, place, jobs, progress) for sweep in (own, *others)]
    chosen = chosen_recipes(load_results(folders).rows, own, TITLES[table])
    return load_results([*folders, *(_run(sweep, out, place, jobs, progress) for sweep in chosen)]).rows


def chosen_recipes(rows: Sequence[MeasuredRow], sweep: SweepRecipe, title: str = TITLES["table1"]) -> list[SweepRecipe]:
    """A sweep for each artifact: its models, and on them the chosen runs, with the tests of robustness."""
    return [
        sweep.model_copy(
            update={
                "name": f"{sweep.name}-chosen-{found.artifact}",
                "checkpoints": tuple(pattern for pattern in sweep.checkpoints if found.artifact in pattern),
                "methods": tuple(_chosen(found)),
                "grid": "none",
                "search": None,
                "robustness": Robustness(),
            }
        )
        for found in reproductions(rows, title)
    ]


def _chosen(found: Reproduction) -> Iterator[Method]:
    for method in found.group.methods():
        settings = [s for limited in (True, False) if (s := found.best(method, limited=limited))]
        for options in {setting.options: setting.rows[0].options for setting in settings}.values():
            yield Method(name=method, options=options)


def _run(sweep: SweepRecipe, out: Path, place: str, jobs: int | None, progress: Progress | bool) -> Path:
    folder = out / sweep.name
    opened = open_sweep(sweep, out=folder, runs=Path("runs"), device_type=place.partition(":")[0])
    engine = local_engine(place, jobs)
    if sweep.search is None:
        run_sweep(opened, engine, progress=progress)
    else:
        search(opened, engine, row_scores, progress=progress)
    return folder
