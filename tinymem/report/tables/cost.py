"""The paper's Tables 6 to 9, for our rows and as published: cost by phase, per run, and against working on large models.

The paper counts node hours of four GPUs, tripled "for debugging, faulty runs and unaccounted usage"; ours are the seconds measured, on
one device. So the paper's numbers appear twice: as printed, and as measured (a third).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

from tinymem.recipe.paper import CHECKPOINTS, EXPERIMENTS, GRID, NODE_HOURS, RUNS, TRIPLED
from tinymem.report.cells import DASH
from tinymem.report.configurations import in_order
from tinymem.report.energy import PERLMUTTER, POLARIS, machine_of
from tinymem.report.tables.registry import TableInputs, report_table
from tinymem.report.tables.table import Cell, Column, Table
from tinymem.results.collect import Results, model_of
from tinymem.results.row import MeasuredRow
from tinymem.runtime.power import Machine

SMALL = ("additive", "multiplicative", "wiki")
PHASES = {"training": "(i) training", "mitigation": "(ii) mitigation, small models", "large": "(iii) mitigation, other models"}


@dataclass(frozen=True)
class Spent:
    """Resources that one phase took.

    Attributes:
        runs: models trained, or methods run.
        node_hours: sum over all machines.
        energy: kWh.
        carbon: kg of CO2.
        machines: the machines that ran it.
        sources: the rows behind it.
    """

    runs: int
    node_hours: float
    energy: float
    carbon: float
    machines: tuple[Machine, ...]
    sources: tuple[str, ...] = ()

    def times(self, factor: float) -> Spent:
        """All resources times a factor; the number of runs stays."""
        return replace(self, node_hours=factor * self.node_hours, energy=factor * self.energy, carbon=factor * self.carbon)


Seconds = dict[str, dict[str, float]]
"""Of each method its runs' seconds, by source."""
RESOURCES = {"node_hours": "node hours", "energy": "energy kWh", "carbon": "carbon kg"}
# Tables 7 and 8 as printed; how many models were trained follows from section 6.1 and appendix A.1.
PUBLISHED = {
    "training": Spent(168, 1116, 2297, 910, (POLARIS,)),
    "mitigation": Spent(EXPERIMENTS, NODE_HOURS, 12_871, 5097, (POLARIS,)),
    "large": Spent(1216, 726, 1647, 430, (PERLMUTTER,)),
}
# Table 9 as printed: so many runs of phase (ii) at the cost of one of phase (iii).
PUBLISHED_LARGE = Spent(EXPERIMENTS, 61_619, 138_642, 36_316, (PERLMUTTER,))


def spent_by_phase(results: Results, machine: Machine | None = None) -> dict[str, Spent]:
    """Our seconds by phase; a run counts once, though it has a row for each artifact, and so does a model."""
    processor = _processor(results)
    models = {model_of(row): row for row in results.trained if row.training_seconds is not None}
    runs = {row.id or row.source: row for row in results.rows if row.seconds is not None}
    small = [row for row in runs.values() if row.data in SMALL]
    large = [row for row in runs.values() if row.data not in SMALL]
    found = {"training": _sum(models.values(), lambda row: row.training_seconds, machine, processor)}
    return {**found, "mitigation": _sum(small, _seconds, machine, processor), "large": _sum(large, _seconds, machine, processor)}


def _processor(results: Results) -> str:
    """What a row without a device counts as, such as one of a training curve: the first processor of the others, or just `cpu`."""
    devices = (row.device for row in (*results.trained, *results.rows))
    return next((device for device in devices if device and device.startswith("cpu")), "cpu")


def _seconds(row: MeasuredRow) -> float | None:
    return row.seconds


def _sum(rows: Iterable[MeasuredRow], seconds: Callable[[MeasuredRow], float | None], machine: Machine | None, processor: str) -> Spent:
    hours: dict[Machine, float] = defaultdict(float)
    rows = list(rows)
    for row in rows:
        hours[machine or machine_of(row.device or processor)] += (seconds(row) or 0.0) / 3600
    energy = sum(m.kilowatt_hours(h) for m, h in hours.items())
    carbon = sum(m.kilograms(h) for m, h in hours.items())
    return Spent(len(rows), sum(hours.values()), energy, carbon, tuple(hours), tuple(row.source for row in rows))


@report_table("6", "7", "8", "9", "projection")
def cost_tables(inputs: TableInputs) -> list[Table]:
    """Tables 6 to 9, and a projection of the paper's grid from our seconds."""
    phases = spent_by_phase(inputs.results, inputs.machine)
    if not any(spent.runs for spent in phases.values()):
        return []
    found = [system_table(phases), phase_table(phases), run_table(phases)]
    if phases["mitigation"].runs:
        found.append(saved_table(phases))
    return [*found, *projection_table(inputs.results)]


def system_table(phases: dict[str, Spent]) -> Table:
    """Table 6: the machines, as equation 4 models them."""
    machines = dict.fromkeys([POLARIS, PERLMUTTER, *(machine for spent in phases.values() for machine in spent.machines)])
    heads = ("machine", "CPU usage", "CPU W", "GPUs", "GPU usage", "GPU W", "memory GB", "PUE", "g CO2/kWh")
    rows = tuple(tuple(Cell(str(v) if isinstance(v, str) else f"{v:g}", value=v) for v in _values(machine)) for machine in machines)
    notes = (
        "Polaris and Perlmutter are the paper's. Ours are guesses: a processor counts as a Polaris node without GPUs, a GPU as a quarter "
        "of one with that GPU's thermal design power. Name your own with --machine FILE.",
        "The paper does not print carbon intensities; these lead from its energy to its carbon.",
    )
    return Table("6", "table-6", "Table 6. Machines, as the estimate of energy sees them", _columns(heads), rows, notes)


def _values(machine: Machine) -> list[float | str]:
    return [getattr(machine, field.name) for field in fields(machine)]


def phase_table(phases: dict[str, Spent]) -> Table:
    """Table 7: hours, energy and carbon of each phase."""
    rows = []
    for phase, label in PHASES.items():
        lines = [("ours, measured", phases[phase])] if phases[phase].runs else []
        lines += [("paper, as printed", PUBLISHED[phase]), ("paper, a third", PUBLISHED[phase].times(1 / TRIPLED))]
        rows += [
            (Cell(label), Cell(whose), Cell(", ".join(m.name for m in spent.machines)), *_resources(spent, 1)) for whose, spent in lines
        ]
    heads = ("phase", "whose", "machine", "node hours", "energy kWh", "carbon kg")
    notes = (
        "Energy and carbon by equations 4 and 5. Ours: seconds of training or of the method alone, without measurements before and after, "
        "on one device. A node of the paper has four GPUs, and its hours are tripled for debugging and faulty runs.",
    )
    return Table("7", "table-7", "Table 7. Cost by phase", _columns(heads, 3), tuple(rows), notes)


def run_table(phases: dict[str, Spent]) -> Table:
    """Table 8: hours, energy and carbon per run."""
    rows = []
    for phase in ("mitigation", "large"):
        lines = [("ours, measured", phases[phase])] if phases[phase].runs else []
        lines += [("paper, as printed", PUBLISHED[phase]), ("paper, a third", PUBLISHED[phase].times(1 / TRIPLED))]
        rows += [
            (Cell(PHASES[phase]), Cell(whose), Cell(f"{spent.runs:,}", value=spent.runs), *_resources(spent, spent.runs))
            for whose, spent in lines
        ]
    heads = ("phase", "whose", "runs", "node hours a run", "kWh a run", "kg a run")
    return Table("8", "table-8", "Table 8. Cost of one run", _columns(heads, 2), tuple(rows), ("Table 7 by the number of runs.",))


def saved_table(phases: dict[str, Spent]) -> Table:
    """Table 9: our runs, had each been one on a large model."""
    ours, measured = phases["mitigation"], phases["large"]
    large = measured if measured.runs else PUBLISHED["large"].times(1 / TRIPLED)
    pairs = (("ours", ours, large.times(ours.runs / large.runs)), ("paper, as printed", PUBLISHED["mitigation"], PUBLISHED_LARGE))
    rows = [
        (Cell(label, marks=(1,) if whose != "ours" else ()), Cell(whose), *_saved(getattr(small, name), getattr(big, name), small.sources))
        for whose, small, big in pairs
        for name, label in RESOURCES.items()
    ]
    heads = ("resource", "whose", "small models", "large models", "times as much")
    origin = "our own runs on other models" if measured.runs else "the paper's phase (iii), a third of it"
    notes = (f"The {ours.runs:,} mitigations counted in Table 7, beside as many at the cost of one on a large model: {origin}.",)
    marked = ("The paper prints 986 %, 1077 % and 712 % as the increase: that is the ratio in percent, the increase is 100 points less.",)
    return Table("9", "table-9", "Table 9. The same runs on large models", _columns(heads, 2), tuple(rows), notes, marked)


def _saved(small: float, large: float, sources: tuple[str, ...]) -> list[Cell]:
    ratio = large / small if small else None
    times = Cell(DASH) if ratio is None else Cell(f"{ratio:,.1f}", value=ratio)
    return [Cell(amount(small), value=small, sources=sources), Cell(amount(large), value=large), times]


def projection_table(results: Results) -> list[Table]:
    """The paper's whole grid, had each run taken the mean of our seconds for its method: on each device by itself."""
    processor = _processor(results)
    by_device: dict[str, Seconds] = defaultdict(lambda: defaultdict(dict))
    for row in results.rows:
        if row.method in GRID and row.seconds is not None and row.data in SMALL:
            by_device[row.device or processor][row.method][replace(row, artifact="").source] = row.seconds
    if not by_device:
        return []
    machines = sorted(by_device) if len(by_device) > 1 else []  # named where there are several
    rows = [
        (method, *([Cell(device)] if machines else []), *cells)
        for device in sorted(by_device)
        for method, *cells in _projected(by_device[device])
    ]
    numbers = ("mean seconds", "runs measured", "runs a checkpoint", "runs in all", "device hours")
    heads = ("method", *(["machine"] if machines else []), *numbers)
    paper = PUBLISHED["mitigation"].node_hours * POLARIS.gpus / TRIPLED
    notes = (
        f"The grids of A.3.5 on {CHECKPOINTS} checkpoints, {sum(RUNS.values()):,} runs after its exceptions, as if every model took as "
        "long as those measured here.",
        f"The paper: {paper:,.0f} GPU hours for {EXPERIMENTS:,} runs ({NODE_HOURS:,} node hours of four GPUs, without their tripling).",
        *(["Each machine by itself, as if it did all of the grid: seconds of different machines are not averaged."] if machines else []),
    )
    return [Table("projection", "projection", "The paper's grid at our seconds", _columns(heads, 2 if machines else 1), tuple(rows), notes)]


def _projected(seconds: Seconds) -> list[tuple[Cell, ...]]:
    """Lines of one device: each method of the grid, and the sum of those with seconds."""
    rows: list[tuple[Cell, ...]] = []
    total = 0.0
    for method in in_order(GRID):
        found = seconds.get(method, {})
        mean = sum(found.values()) / len(found) if found else None
        hours = None if mean is None else mean * RUNS[method] / 3600
        total += hours or 0.0
        measured = [_amount_cell(mean), Cell(f"{len(found):,}", value=len(found)), Cell(f"{GRID[method]}", value=GRID[method])]
        rows.append((Cell(method), *measured, Cell(f"{RUNS[method]:,}", value=RUNS[method]), _amount_cell(hours)))
    count = sum(RUNS[method] for method in seconds)
    rows.append((Cell("sum of those measured"), *[Cell(DASH)] * 3, Cell(f"{count:,}", value=count), _amount_cell(total)))
    return rows


def _resources(spent: Spent, runs: int) -> list[Cell]:
    values = [getattr(spent, name) / runs for name in RESOURCES]
    return [Cell(amount(value), value=value, n=spent.runs, sources=spent.sources) for value in values]


def amount(value: float) -> str:
    """A number with three significant digits and no exponent.

    >>> amount(6251.0), amount(0.0609), amount(0.0)
    ('6,251', '0.0609', '0')
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = 2
    while abs(value) * 10 ** (digits - 2) < 1:
        digits += 1
    return f"{value:,.{digits}f}" if abs(value) < 10 else f"{value:,.1f}"


def _amount_cell(value: float | None) -> Cell:
    return Cell(DASH) if value is None else Cell(amount(value), value=value)


def _columns(heads: tuple[str, ...], words: int = 1) -> tuple[Column, ...]:
    return tuple(Column(head, numeric=i >= words) for i, head in enumerate(heads))
