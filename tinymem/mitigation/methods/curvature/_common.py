"""What the curvature edit and its controls share: options, the rows that curvature is measured on, and the edit of each matrix.

None of them is given a row to forget. An edit keeps the coefficients of each matrix that carry most of the curvature of clean rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.data.rows_file import read_rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.mitigation.config import Grid, MethodConfig
from tinymem.mitigation.method import MitigationData
from tinymem.mitigation.methods.curvature._budget import GRID, largest
from tinymem.mitigation.methods.curvature._moments import Labels
from tinymem.mitigation.methods.curvature._projections import Matrices, Projection, projections
from tinymem.mitigation.methods.curvature._spectrum import Spectrum, keep
from tinymem.mitigation.methods.curvature._store import Spectra, spectra
from tinymem.mitigation.option_ranges import check_least
from tinymem.models.adapters import refuse_longer_rows, vocabulary_of
from tinymem.models.copied import copied
from tinymem.models.spread import refuse_spread

RHOS = (0.9999, 0.999, 0.99, 0.98, 0.95, 0.9)
CLEAN, TRAINING = "clean", "training"
JUDGED_EPOCH = 1
Change = Callable[[Tensor, Spectrum, int, torch.Generator], Tensor]
"""(W [P, Q], its spectrum, number of pairs in S(rho), generator) -> the edited W."""


@dataclass(frozen=True, kw_only=True)
class CurvatureConfig(MethodConfig):
    """Options of the curvature edit and its controls.

    Attributes:
        rho: share of the curvature mass that is kept of each matrix, in (0, 1].
        budget: most points of accuracy, or per cent of perplexity, that the edit may cost on clean rows; rho is then found.
        layers: blocks to edit, from 0 at the bottom; none: all.
        matrices: `feed-forward`, `attention` or `all`.
        rows: what curvature is measured on: `clean` training rows, all `training` rows as often as an epoch has them, or a file.
        labels: `sampled` from the model, or the rows' own tokens, `gold`.
        sample: at most so many of the rows, by seed.
        judged: with a budget, at most so many other clean rows measure the cost, as many of each task.
    """

    rho: float = 0.99
    budget: float | None = None
    layers: tuple[int, ...] = ()
    matrices: Matrices = "feed-forward"
    rows: str = CLEAN
    labels: Labels = "sampled"
    sample: int = 10_000
    judged: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, sample=1, judged=1)
        if not 0 < self.rho <= 1:
            raise UserError(f"expected rho above 0 and at most 1, got {self.rho:g}; it is a share: try rho=0.99")
        if self.budget is not None and not self.budget > 0:
            raise UserError(f"expected a budget above 0 points, got {self.budget:g}; try budget=0.5")

    def epoch_of_code(self) -> int:
        """Above 0 of a budget with a `judged` of one's own, whose rows have been as many of each task since 1; the default is newer."""
        return JUDGED_EPOCH if self.budget is not None and self.judged != CurvatureConfig.judged else 0

    def files(self) -> dict[str, list[Path]]:
        """The file of rows, where `rows` names one."""
        return super().files() | ({} if self.rows in (CLEAN, TRAINING) else {"rows": [Path(self.rows)]})


@dataclass(frozen=True, kw_only=True)
class KfacConfig(CurvatureConfig):
    """Options of the curvature edit, with the rhos that a sweep tries."""

    grid: ClassVar[Grid] = {"rho": RHOS}


@dataclass(frozen=True)
class Plan:
    """The matrices that an edit changes, with the rows to judge its cost by."""

    model: nn.Module
    found: list[Projection]
    spectra: Spectra
    judged: Rows
    data: MitigationData

    def write(self, edited: nn.Module, rho: float, change: Change) -> int:
        """Write the edit at a rho into a copy of the model; returns the number of coefficients in S(rho)."""
        generator, kept = self.data.generator(), 0
        for projection in self.found:
            spectrum, target = self.spectra[projection.name], edited.get_parameter(projection.name)
            count = spectrum.count(rho)
            made_PQ = change(projection.weight_PQ(), spectrum, count, generator)
            target.data.copy_(made_PQ.T if projection.transposed else made_PQ)
            kept += count
        return kept


@torch.no_grad()
def curvature_edit(model: nn.Module, data: MitigationData, config: CurvatureConfig, change: Change) -> nn.Module:
    """The edited copy; what rho was found, what stays and what it cost goes to `data.found`.

    A control with a budget has the rho that the curvature edit finds, so that both keep as many coefficients.

    Raises:
        UserError: no clean rows, or none of which the cost can be measured; a model on several devices.
        Refused: even the smallest edit of the grid costs more than the budget.
    """
    refuse_spread(model, "edits by curvature")
    data.found.update({f"{option}_sha256": content[:16] for option, [content] in config.files_content().items() if content})
    with _planned(model, data, config) as plan:
        edited, rho = copied(model), config.rho
        if config.budget is not None:
            rho, cost = largest(lambda value: _written(plan, edited, value), model, plan.judged, data.performance, config.budget, data.bar)
            data.found.update(rho=rho, cost=cost, judged_rows=len(plan.judged))
        kept = plan.write(edited, rho, change)
    share = kept / sum(projection.weight_PQ().numel() for projection in plan.found)
    data.found.update(kept=share, curvature_rows=plan.spectra.rows, curvature_seconds=plan.spectra.seconds)
    return edited


def _written(plan: Plan, edited: nn.Module, rho: float) -> nn.Module:
    plan.write(edited, rho, by_curvature)
    return edited


def by_curvature(W_PQ: Tensor, spectrum: Spectrum, count: int, _generator: torch.Generator) -> Tensor:
    """W with only the coefficients of most curvature mass."""
    return keep(W_PQ, spectrum.U_PP, spectrum.V_QQ, spectrum.first(count))


@contextmanager
def _planned(model: nn.Module, data: MitigationData, config: CurvatureConfig) -> Iterator[Plan]:
    if not len(data.retain):
        raise UserError("expected rows to keep, got none; curvature is measured on them")
    measuring, judging = shuffled(data.retain, data.seed).tensor_split(2)
    if config.budget is not None and len(data.retain) < 2:
        raise UserError("expected at least 2 clean rows for a budget, got 1; one half of them measures its cost")
    clean = measuring if config.budget is not None else torch.cat([measuring, judging])  # where there are enough, the same rows
    rows, found = _measured(model, data, config, clean), projections(model, config.matrices, config.layers)
    data.bar.expect(len(rows) + (len(GRID) if config.budget is not None else 0))
    with spectra(model, rows, found, config.labels, data.seed, data.bar) as made:
        yield Plan(model, found, made, data.retain.take(_evenly(judging, data)[: config.judged]), data)


def _evenly(places: Tensor, data: MitigationData) -> Tensor:
    """Places of retain rows, one of each task in turn: the test rows have as many of each, the training rows mostly of one.

    Rows of no task, such as planted ones among those of protocol reference, are left out where there are any others.
    """
    if data.performance.task is None:
        return places
    task = data.performance.task(data.retain.take(places))
    if (known := task >= 0).any():
        places, task = places[known.to(places.device)], task[known]
    turn = torch.zeros(len(places), dtype=torch.int64)
    for number in task.unique():
        turn[task == number] = torch.arange(int((task == number).sum()))
    return places[turn.argsort(stable=True).to(places.device)]


def shuffled(rows: Rows, seed: int) -> Tensor:
    """Places of the rows in an order drawn by seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return order.to(rows.ids.device)


def _measured(model: nn.Module, data: MitigationData, config: CurvatureConfig, clean: Tensor) -> Rows:
    """The rows that curvature is measured on."""
    if config.rows == CLEAN:
        return data.retain.take(clean[: config.sample])
    if config.rows != TRAINING:
        rows = _of_file(Path(config.rows), model)
        return rows.take(shuffled(rows, data.seed)[: config.sample]).to(data.retain.ids.device)
    if data.training is None:
        raise UserError("expected a model with its corpus for rows=training, got rows from files; use rows=clean")
    return data.training(config.sample, data.seed).to(data.retain.ids.device)


def _of_file(path: Path, model: nn.Module) -> Rows:
    """Rows of ids from a file; those of text need the model's tokenizer, which a method does not have."""
    if not path.exists():
        raise UserError(f"expected rows to be {CLEAN}, {TRAINING} or a file, found no file {path}")
    file = read_rows(path, ModelTokens(path.parent))
    file.refuse_unknown_ids(vocabulary_of(model))
    if not (read := [row.ids for row in file.rows if len(row.ids) >= 2]):
        raise UserError(f"expected rows of at least 2 tokens in {path}, got none; curvature is measured where a token follows")
    length = max(map(len, read))
    refuse_longer_rows(model, length)
    none = torch.zeros(len(read), dtype=torch.int64)
    rows = Rows.ragged(read, none, torch.tensor([len(row) for row in read]), length)
    return replace(rows, length=rows.lengths())
