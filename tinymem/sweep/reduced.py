"""A subject with fewer rows, on which the rungs of a search run and are measured."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tinymem.data.rows import Rows
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.subject import Subject
from tinymem.sweep.work import Rung


def reduced(subject: Subject, rung: Rung) -> Subject:
    """The subject with a rung's share of the rows, drawn by its seed.

    Artifact rows are all scored; further metrics and the sizes of edits are not measured.
    """
    data = subject.data
    seed, forget = data.seed, len(data.forget)
    tests = {name: _some(part, rung.tests, seed) for name, part in subject.evaluator.tests.items()}
    evaluator = replace(subject.evaluator, tests=tests, metrics=(), probes_by_k={})
    shown = forget if rung.forget is None else min(rung.forget, forget)
    index = _drawn(forget, shown, seed).to(data.forget.ids.device)
    rows = replace(data.with_forget(index), retain=_taken(data.retain, _share(len(data.retain), rung.retain), seed))
    if data.clean is not None:
        rows = replace(rows, clean=data.clean[_drawn(len(data.clean), _share(len(data.clean), rung.retain), seed).to(data.clean.device)])
    request = MeasurementRequest(metrics=(), ks=(), robustness=None)
    return replace(subject, evaluator=evaluator, before=evaluator.measure(subject.model), data=rows, request=request, sized=False)


def _share(count: int, share: float) -> int:
    """A share of rows, at least one where there are any."""
    return min(count, max(1, round(count * share)))


def _some(part: tuple[Tensor, Tensor], share: float, seed: int) -> tuple[Tensor, Tensor]:
    """A share of a test set's rows, with their scored tokens."""
    ids, scored = part
    index = _drawn(len(ids), _share(len(ids), share), seed).to(ids.device)
    return ids[index], scored[index]


def _taken(rows: Rows, number: int, seed: int) -> Rows:
    return rows.take(_drawn(len(rows), number, seed).to(rows.ids.device))


def _drawn(count: int, number: int, seed: int) -> Tensor:
    """Indices of so many of the rows, in order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:number].sort().values
