"""`tinymem curvature`: how well curvature tells the memorized rows of a checkpoint from others, against what was planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.runtime.progress import Progress, progress_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tinymem.data.corpus import Corpus
    from tinymem.data.rows import Rows
    from tinymem.evaluation.probes import Flags, Probe
    from tinymem.recipe.recipe import Recipe

CURVATURE = "tr F"


@dataclass(frozen=True)
class Detection:
    """One detector on one artifact of a checkpoint.

    Attributes:
        artifact: whose rows.
        detector: `tr F`, or a band of the spectrum such as `rho 0.5 to 0.9`.
        ratio: mean over the memorized training rows by that over clean ones; None where those of clean rows are all 0, or as of `auc`.
        auc: probability that a memorized row scores above a clean one; 0.5 is chance; None where scores are no numbers, as of a band that
            no clean row drives in any matrix, or all 0.
        auc_planted: that it scores above a row of the artifact that is not memorized; None without such rows.
        memorized, clean, planted: numbers of rows.
    """

    artifact: str
    detector: str
    ratio: float | None
    auc: float | None
    auc_planted: float | None
    memorized: int
    clean: int
    planted: int


def detect(
    checkpoint: Path,
    *,
    samples: int = 200,
    seed: int = 0,
    device: str = "auto",
    verify: bool = True,
    corpus: Path | None = None,
    progress: Progress | bool = True,
) -> list[Detection]:
    """Score memorized, clean and planted rows of a checkpoint by each detector.

    Args:
        checkpoint: the folder, with its corpus.
        samples: at most so many rows of each group, by seed; of the clean ones at most half, since others give the spectrum.
        seed: of rows and labels.
        device: `auto`, `cpu` or `cuda`.
        verify: as of `load_checkpoint`.
        corpus: as of `own_corpus`.
        progress: as of `tinymem.run`.

    Raises:
        UserError: bad input, fewer than two clean rows, or no memorized row of any artifact.
    """
    from tinymem.models.checkpoint import load_checkpoint
    from tinymem.runs.subjects import own_corpus
    from tinymem.runtime.device import resolve_device

    loaded = load_checkpoint(checkpoint, device=resolve_device(device), verify=verify)
    recipe, rows = own_corpus(loaded, checkpoint, corpus)
    with progress_of(progress).stage("curvature"):
        found = [*_detections(loaded.model, recipe, rows, samples, seed)]
    if not found:
        raise UserError(f"expected memorized rows of some artifact in {checkpoint}, found none; train longer, or take another checkpoint")
    return found


def _detections(model: nn.Module, recipe: Recipe, corpus: Corpus, samples: int, seed: int) -> Iterator[Detection]:
    from tinymem.evaluation.probes import forbidden_token, make_probes, memorized_rows
    from tinymem.mitigation.detectors import EDGES, scores
    from tinymem.mitigation.subject import clean_rows

    device = next(model.parameters()).device
    clean = _drawn(clean_rows(corpus, recipe), seed, None).to(device)
    if not (scored := min(samples, len(clean) // 2)):
        raise UserError(f"expected at least 2 clean rows, to measure curvature and to compare with, got {len(clean)}; use more data")
    names = [CURVATURE, *(f"rho {low:g} to {high:g}" for low, high in pairwise(EDGES))]
    forbid = forbidden_token(recipe.protocol, corpus.eos)
    for kind, probe in make_probes(corpus, recipe.evaluation, recipe.protocol).items():
        known = memorized_rows(model, probe.rows.to(device), forbid=forbid).numpy()
        member, planted = (_planted(corpus, recipe, kind, probe, f) for f in (known & probe.trained, ~known & probe.trained))
        if len(member):
            groups = [_take(clean, 0, scored), *(_drawn(rows, seed, samples).to(device) for rows in (member, planted))]
            by_group = scores(model, groups, _take(clean, scored, len(clean)), seed=seed)
            for name, *of_detector in zip(names, *by_group, strict=True):
                yield _compared(kind, name, *of_detector)


def _compared(artifact: str, detector: str, clean: Tensor, memorized: Tensor, planted: Tensor) -> Detection:
    import numpy as np

    from tinymem.evaluation.roc import auc

    other, member, third = (values.double().cpu().numpy() for values in (clean, memorized, planted))
    counts = len(member), len(other), len(third)
    scores = np.concatenate([other, member, third])
    if np.isnan(scores).any() or not scores.any():  # NaN: a band's unit is what drives clean rows, and nothing does
        return Detection(artifact, detector, None, None, None, *counts)
    ratio = float(member.mean() / other.mean()) if other.mean() > 0 else None
    return Detection(artifact, detector, ratio, auc(member, other), auc(member, third), *counts)


def _planted(corpus: Corpus, recipe: Recipe, kind: str, probe: Probe, chosen: Flags) -> Rows:
    """Chosen rows of an artifact as they were in training."""
    from tinymem.data.rows import Rows
    from tinymem.evaluation.originals import content_lengths

    ids = corpus.planted[kind].ids[probe.index[chosen]]
    return Rows.of(ids, recipe.evaluation.prompt, content_lengths(corpus, ids, recipe.protocol))


def _drawn(rows: Rows, seed: int, number: int | None) -> Rows:
    from tinymem.mitigation.methods.curvature._common import shuffled

    return rows.take(shuffled(rows, seed)[:number])


def _take(rows: Rows, first: int, end: int) -> Rows:
    import torch

    return rows.take(torch.arange(min(first, len(rows)), min(end, len(rows)), device=rows.ids.device))
