"""`tinymem landscape`: the loss around checkpoints, measured and drawn (Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError, check_given, did_you_mean
from tinymem.report.figures.figure import Line
from tinymem.report.figures.files import write_figures
from tinymem.report.figures.landscape import figure_4
from tinymem.runtime.progress import Progress, progress_of

if TYPE_CHECKING:
    from torch import Tensor

    from tinymem.data.corpus import Corpus
    from tinymem.models.checkpoint import Checkpoint
    from tinymem.models.weights import DTypeName
    from tinymem.recipe.recipe import Recipe


def write_landscape(
    checkpoints: Sequence[Path],
    out: Path,
    *,
    rows: str = "test",
    samples: int = 256,
    steps: int = 21,
    span: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    verify: bool = True,
    dtype: DTypeName = "auto",
    corpus: Path | None = None,
    progress: Progress | bool = True,
) -> list[Path]:
    """Measure the loss around checkpoints and write `figure-04` as PNG, SVG, CSV and JSON. Returns the paths.

    Args:
        checkpoints: different folders; several are drawn side by side on one scale, as a model before and after edits.
        out: folder for the files.
        rows: the rows of the loss: `test` (clean test rows), an artifact of the corpus (its scored rows, the suffix tokens), or a file of
            rows, of which every token but the first counts.
        samples: at most so many rows, by seed.
        steps: points per direction, odd.
        span: largest step, as a share of each filter's length.
        seed: of rows and directions.
        device: `auto`, `cpu` or `cuda`.
        verify: as of `load_checkpoint`.
        dtype: as of `load_checkpoint`.
        corpus: as of `own_corpus`, of all checkpoints.
        progress: as of `tinymem.run`.

    Raises:
        UserError: bad input; nothing is written then.
    """
    from tinymem.evaluation.landscape import landscape
    from tinymem.models.checkpoint import load_checkpoint
    from tinymem.runs.subjects import own_corpus
    from tinymem.runtime.device import resolve_device

    _refuse_repeated(checkpoints)
    lines: list[Line] = []
    for name, path in zip(names_of(checkpoints), checkpoints, strict=True):
        loaded = load_checkpoint(path, device=resolve_device(device), verify=verify, dtype=dtype)
        file = Path(rows) if Path(rows).is_file() else None
        sets = _of_file(loaded, path, file, samples, seed) if file else _sets(loaded, own_corpus(loaded, path, corpus), rows, samples, seed)
        with progress_of(progress).stage(f"landscape {name}", steps * steps) as bar:
            found = landscape(loaded.model, sets, steps=steps, span=span, seed=seed, bar=bar)
        for b, row in zip(found.coordinates, found.losses, strict=True):
            lines += [{"model": name, "rows": rows, "a": a, "b": b, "loss": loss} for a, loss in zip(found.coordinates, row, strict=True)]
    return write_figures([figure_4(lines)], out)


def _refuse_repeated(checkpoints: Sequence[Path]) -> None:
    """Raise UserError for a folder that is given twice, however it is spelled: a panel is known by its name."""
    first: dict[Path, Path] = {}
    for path in checkpoints:
        if (folder := path.resolve()) in first:
            raise UserError(f"expected different checkpoints, got one twice, as {first[folder]} and as {path}; name it once")
        first[folder] = path


def names_of(checkpoints: Sequence[Path]) -> list[str]:
    """Distinct names of different checkpoint folders: that of the run for `<run>/checkpoint`; whole paths if names repeat."""
    paths = [path.resolve() for path in checkpoints]
    names = [path.parent.name if path.name == "checkpoint" else path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in checkpoints]


def _sets(loaded: Checkpoint, own: tuple[Recipe, Corpus], rows: str, samples: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    from tinymem.evaluation.evaluator import Evaluator

    recipe, corpus = own
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=next(loaded.model.parameters()).device)
    known = ["test", *evaluator.probes]
    if rows not in known:
        raise UserError(f"expected --rows {' or '.join(known)}, or a file of rows, got '{rows}'; {did_you_mean(rows, known)}")
    if rows == "test":
        return [_sample(pair, max(1, samples // len(evaluator.tests)), seed) for pair in evaluator.tests.values()]
    probe = evaluator.probes[rows].rows
    return [_sample((probe.ids, probe.window()), samples, seed)]


def _of_file(loaded: Checkpoint, checkpoint: Path, file: Path, samples: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    from tinymem.data.own_rows import RowFiles
    from tinymem.mitigation.files_subject import own_rows

    check_given({"rows": file})
    kept = own_rows(loaded, checkpoint, RowFiles(retain=file), None).retain.to(next(loaded.model.parameters()).device)
    scored = kept.own()
    scored[:, 0] = False
    return [_sample((kept.ids, scored), samples, seed)]


def _sample(pair: tuple[Tensor, Tensor], count: int, seed: int) -> tuple[Tensor, Tensor]:
    import torch

    ids, scored = pair
    chosen = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:count].sort().values.to(ids.device)
    return ids[chosen], scored[chosen]
