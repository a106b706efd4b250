"""`tinymem mitigate`: methods on one checkpoint, on its own corpus or on any rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import nn

from tinymem.data.own_rows import RowFiles
from tinymem.errors import UserError, described
from tinymem.hub.names import origin_of
from tinymem.mitigation.files_subject import Changes, identity_of, subject_of_files
from tinymem.mitigation.memory import workload_of
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.run import Outcome, Subject, row_id, run_call
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.edited import edited_bytes, save_edited
from tinymem.models.weights import DTypeName
from tinymem.results.read import as_json
from tinymem.results.row import MitigationRow
from tinymem.runs.subjects import Measuring, subject_of_own_corpus
from tinymem.runtime.device import resolve_device
from tinymem.runtime.json import JsonObject
from tinymem.runtime.memory import refuse_beyond_disk
from tinymem.runtime.progress import Progress, progress_of
from tinymem.training.checkpoints import without_places


class NotSaved(UserError):
    """An edited checkpoint that could not be written, with the result rows of the edit."""

    def __init__(self, message: str, rows: list[MitigationRow]) -> None:
        super().__init__(message)
        self.rows = rows


def mitigate_checkpoint(
    checkpoint: Path | str,
    call: MethodCall | Sequence[MethodCall],
    *,
    out: Path | str | None = None,
    files: RowFiles | None = None,
    protocol: str | None = None,
    forget_fraction: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
    verify: bool = True,
    dtype: DTypeName = "auto",
    gpus: int = 1,
    revision: str | None = None,
    progress: Progress | bool = True,
) -> list[MitigationRow]:
    """Run methods on a checkpoint, which is loaded and measured once, and write the edited checkpoints.

    Args:
        checkpoint: the folder.
        call: the method with its options, as `parse_call("act", {"ratio": 0.05})` gives it, or several; one that is refused or fails
            then leaves the others alone.
        out: folder for the edited checkpoint; of several methods it has one for each, named after the method.
        files: rows of one's own to forget and to keep, or the corpus, and the window; default: the checkpoint's corpus and window.
        protocol: paper or reference; default: the recipe's, or paper.
        forget_fraction: share of the memorized rows that the method is given; default: the recipe's, or a half.
        seed: of what is drawn; default: the recipe's, or 0.
        device: `auto`, `cpu` or `cuda`.
        measuring: metrics and tests.
        verify: as of `load_checkpoint`.
        dtype: as of `load_checkpoint`.
        gpus: as of `load_checkpoint`.
        revision: of the Hub, for the rows.
        progress: as of `tinymem.run`.

    Raises:
        UserError: bad input; also if the only method was refused or failed.
        NotSaved: an edited checkpoint could not be written.
    """
    device, files, progress = resolve_device(device, gpus), files or RowFiles(), progress_of(progress)
    checkpoint, out = Path(checkpoint), None if out is None else Path(out)
    calls = [call] if isinstance(call, MethodCall) else list(call)
    places = _places(out, calls)
    if out is not None:
        refuse_beyond_disk(len(calls) * edited_bytes(checkpoint), out, "the edited checkpoint")
    measuring = measuring or Measuring()
    needed = partial(workload_of(checkpoint, files, device, robustness=measuring.robustness).editing, calls=calls)
    loaded = load_checkpoint(checkpoint, device=device, needed=needed, verify=verify, dtype=dtype, gpus=gpus)
    identity = identity_of(loaded, checkpoint, device, revision)
    changes = Changes(protocol, forget_fraction, seed)
    if files.given:
        subject, forgotten = subject_of_files(loaded, checkpoint, files, changes, identity, measuring.request(), progress)
    else:
        subject, forgotten = subject_of_own_corpus(loaded, checkpoint, files, changes, identity, measuring, progress)
    edits = _Edits(checkpoint, loaded, replace(subject, dtypes=loaded.dtypes) if loaded.dtypes else subject, forgotten)
    for one in calls:
        edits.run(one, places.get(one.name), progress, alone=len(calls) == 1)
    return edits.rows


def _places(out: Path | None, calls: Sequence[MethodCall]) -> dict[str, Path]:
    """Folder of each method's edited checkpoint; none without `out`."""
    names = [call.name for call in calls]
    if len({*names}) < len(names):
        raise UserError(f"expected each method once, got {', '.join(names)}; a sweep runs one with several options")
    if out is None:
        return {}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new folder for --out, {out} exists; name another or remove it")
    return {names[0]: out} if len(names) == 1 else {name: out / name for name in names}


@dataclass
class _Edits:
    """The edits of one loaded checkpoint, one after the other."""

    checkpoint: Path
    loaded: Checkpoint
    subject: Subject
    forgotten: str
    rows: list[MitigationRow] = field(default_factory=list)

    def run(self, call: MethodCall, out: Path | None, progress: Progress, *, alone: bool) -> None:
        """Run a method and save its edit; what goes wrong is raised if it is `alone`, else it is in its rows."""
        outcome = run_call(self.subject, call, row=row_id(self.subject.identity, call, self.forgotten), progress=progress)
        self.rows += outcome.rows
        if outcome.model is not None:
            self._save(outcome.model, outcome.rows, out)
        elif alone:
            _raise(outcome, call)

    def _save(self, model: nn.Module, rows: list[MitigationRow], out: Path | None) -> None:
        if out is None:
            return
        origin = origin_of(self.checkpoint)
        edit: JsonObject = {"edited_from": self.subject.identity.model_id, "mitigation": [*as_json(rows)]}
        metadata: JsonObject = {**_for_others(self.loaded), **edit, **({"origin": str(origin)} if origin else {})}
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            save_edited(model, self.checkpoint, out, metadata=metadata)
        except (UserError, OSError) as error:
            raise NotSaved(str(error), self.rows) from error


def _raise(outcome: Outcome, call: MethodCall) -> None:
    assert outcome.error is not None
    if isinstance(outcome.error, UserError):
        raise outcome.error
    what = f"{call.name} failed: {described(outcome.error)}"
    raise UserError(f"{what}; Outcome.error of tinymem.mitigate holds the rest") from outcome.error


def _for_others(loaded: Checkpoint) -> JsonObject:
    """What a checkpoint says of itself, without places on its maker's machine."""
    values, recipe = loaded.metadata.as_json(), loaded.metadata.recipe
    return values if recipe is None else {**values, "recipe": without_places(recipe)}
