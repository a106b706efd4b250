"""The work of a sweep: a group of runs on one model. Every engine calls this, in a process that keeps model, data and base measurement.

A group is claimed, and its runs that have rows already are skipped. Then one scoring pass serves the others, and each run's rows are
written as soon as they are known. The callback `tell` receives the events:

    {"event": "begin", "runs": [...], "spent": s}   work starts that these runs are charged for; alone they would have cost s seconds before
    {"event": "run", "id": ..., "status": ..., "seconds": ...}   a run has its rows (`found`: it had them before)
    {"event": "busy"}                               another process is at work on the group
    {"event": "done"}                               nothing of the group is left
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tinymem.data.corpus import Corpus
from tinymem.data.own_rows import RowFiles
from tinymem.errors import CouldNotWrite, UserError, portable_traceback
from tinymem.mitigation.ablation import ModelChanged
from tinymem.mitigation.config import MethodConfig
from tinymem.mitigation.memory import workload_of
from tinymem.mitigation.method import UNLEARNERS, MethodCall, parse_config
from tinymem.mitigation.run import Outcome, Subject, outcome_of, subject_of_corpus
from tinymem.mitigation.sweep_scores import Edit, shared_edits
from tinymem.models.checkpoint import bytes_of, load_checkpoint
from tinymem.models.weights import weights_id
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep_models import SweepRows
from tinymem.results.row import MitigationRow, Status
from tinymem.results.store import Index, worst_status, write_run
from tinymem.runtime.device import describe_device
from tinymem.runtime.memory import refuse_beyond_memory
from tinymem.sweep.claims import Claims
from tinymem.sweep.named import load_named, row_files
from tinymem.sweep.plan import with_measuring
from tinymem.sweep.reduced import reduced
from tinymem.sweep.work import Event, PlannedRun, Rung, WorkUnit, bare_rows, stamped
from tinymem.training.checkpoints import corpus_of, optimizer_state_of, recipe_of

Tell = Callable[[Event], None]
MAXIMUM_TRACEBACK = 8000


class Worker:
    """State of a worker: the sweep's folder, and the loaded model of its last group."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.claims, self.index = Claims(folder), Index(folder)
        self._model_key: object = None
        self._subject: Subject | None = None
        self._reduced: dict[Rung, Subject] = {}
        self._corpus: tuple[str | None, Corpus] | None = None

    def move_to(self, folder: Path) -> None:
        """Go on in the folder of another sweep, with what is loaded."""
        if folder != self.folder:
            self.claims.close()
            self.folder, self.claims, self.index = folder, Claims(folder), Index(folder)

    def work(self, group: WorkUnit, tell: Tell) -> None:
        """Claim a group, run its runs that are left, and report each event through `tell`."""
        if not self.claims.take(group.name):
            tell({"event": "busy"})
            return
        try:
            left = self._left(group, tell)
            if left:
                self._work(group, left, tell)
        finally:
            self.claims.release(group.name)
        tell({"event": "done"})

    def _left(self, group: WorkUnit, tell: Tell) -> list[PlannedRun]:
        """The runs without rows, or with those that are to be replaced."""
        left = []
        for run in group.runs:
            known = self.index.find(run.id)
            if known is None or (run.replaces is not None and known.finished == run.replaces):
                left.append(run)
            else:
                tell({"event": "run", "id": run.id, "status": known.status, "found": True})
        return left

    def _work(self, group: WorkUnit, left: list[PlannedRun], tell: Tell) -> None:
        method = UNLEARNERS.get(group.method)
        configs = {run.id: parse_config(method, run.config) for run in left}
        names = {id(config): run for run, config in configs.items()}
        try:
            _refuse_changed_files(left, configs)
            subject = self._of_rung(self._loaded(group), group.rung)
        except CouldNotWrite:
            raise
        except Exception as error:
            for run in left:
                rows = bare_rows(group, run, "failed", _message(error))
                self._write(group, run.id, rows, tell, error=error)
            return

        def begin(configs: Sequence[MethodConfig], spent: float) -> None:
            tell({"event": "begin", "runs": [names[id(config)] for config in configs], "spent": spent})

        torch.manual_seed(group.seed)
        options = {run.id: run for run in left}
        for edit in shared_edits(subject.model, method, replace(subject.data), list(configs.values()), begin):
            run = options[names[id(edit.config)]]
            started = time.perf_counter()
            outcome = outcome_of(subject, MethodCall(method, edit.config), edit.result, edit.cost, row=run.id, found=edit.found)
            rows = outcome.rows or bare_rows(group, run, *_ended(outcome))
            rows = [_with_costs(row, subject, edit, time.perf_counter() - started) for row in rows]
            self._write(group, run.id, rows, tell, error=outcome.error)
            if isinstance(outcome.error, ModelChanged):
                self._subject, self._reduced = None, {}  # the next group loads the model again
            if outcome.error is not None:
                _let_go(outcome.error, self.device)

    def _write(self, group: WorkUnit, run: str, rows: list[MitigationRow], tell: Tell, *, error: Exception | None) -> None:
        status = worst_status([row.status for row in rows])
        text = portable_traceback(error)[-MAXIMUM_TRACEBACK:] if error is not None and status == "failed" else None
        write_run(self.folder, run, stamped(rows, group, text))
        seconds = sum(part or 0.0 for part in (rows[0].seconds, rows[0].seconds_measure, rows[0].seconds_robustness))
        tell({"event": "run", "id": run, "status": status, "seconds": seconds})

    def _loaded(self, group: WorkUnit) -> Subject:
        """The group's model with its data and base measurement, loaded once for consecutive groups with equal keys."""
        model = group.model
        key = (group.model_key, model.forget, model.forget_fraction, model.identity.protocol, str(model.measuring), str(model.rows))
        if self._subject is None or self._model_key != key:
            self._subject, self._model_key, self._reduced = None, None, {}  # room for the next one
            self._subject, self._model_key = self._load(group), key
        else:
            more = self._needed(group)(self._subject.model) - bytes_of(self._subject.model)
            gpus = model.rows["gpus"] if model.rows else 1
            refuse_beyond_memory(more, self.device, f"{group.method} on the model in {group.model.checkpoint}", gpus=gpus)
        return self._subject

    def _needed(self, group: WorkUnit) -> Callable[[nn.Module], int]:
        """Bytes that a model takes with the group's runs, by the model."""
        method = UNLEARNERS.get(group.method)
        calls = [MethodCall(method, parse_config(method, run.config)) for run in group.runs]
        rows = group.model.rows
        files = RowFiles() if rows is None else row_files(SweepRows.model_validate(rows["files"]))
        robustness = group.model.measuring["robustness"] is not None
        workload = workload_of(Path(group.model.checkpoint), files, self.device, robustness=robustness)
        return lambda model: workload.editing(model, calls)

    def _of_rung(self, subject: Subject, rung: Rung | None) -> Subject:
        """The loaded subject, or with the fewer rows of a rung, made once for consecutive groups of a model."""
        if rung is None:
            self._reduced = {}  # those of a search's rungs before
            return subject
        if rung not in self._reduced:
            self._reduced[rung] = reduced(subject, rung)
        return self._reduced[rung]

    def _load(self, group: WorkUnit) -> Subject:
        if group.model.rows is not None:
            return load_named(group.model, group.model.rows, group.seed, self.device, self._needed(group))
        checkpoint = Path(group.model.checkpoint)
        expected = group.model.identity.model_id
        loaded = load_checkpoint(checkpoint, device=self.device, needed=self._needed(group))
        if weights_id(checkpoint, loaded.hashes) != expected:
            raise UserError(
                f"expected the weights that the sweep was planned with in {checkpoint} ({expected}), got others; start it again"
            )
        own = recipe_of(checkpoint, loaded.metadata)
        assert own is not None, "the plan took models with recipes only"
        assert group.model.forget is not None, "rows from files are those of models without a recipe"
        recipe = with_measuring(own, group.model.measuring)
        corpus = self._corpus_of(checkpoint, recipe, group.model.identity.corpus_sha256)
        mitigation = recipe.mitigation.model_copy(update={"forget": group.model.forget, "forget_fraction": group.model.forget_fraction})
        # after the corpus, whose rows are those of the model's own protocol
        recipe = recipe.model_copy(update={"seed": group.seed, "protocol": group.model.identity.protocol, "mitigation": mitigation})
        optimizer = optimizer_state_of(checkpoint, loaded.metadata)
        identity = replace(group.model.identity, seed=group.seed, device=describe_device(self.device))
        subject = subject_of_corpus(loaded.model, corpus, recipe, identity=identity, optimizer_state=optimizer)
        return replace(subject, dtypes=loaded.dtypes) if loaded.dtypes else subject

    def _corpus_of(self, checkpoint: Path, recipe: Recipe, sha256: str | None) -> Corpus:
        """The checkpoint's corpus, cached, since a run's checkpoints share it."""
        if self._corpus is None or self._corpus[0] != sha256:
            self._corpus = None  # room for the next one
            self._corpus = sha256, corpus_of(checkpoint, recipe, sha256)
        return self._corpus[1]


def _refuse_changed_files(runs: Sequence[PlannedRun], configs: Mapping[str, MethodConfig]) -> None:
    for run in runs:
        if configs[run.id].files_content() != run.files:
            names = ", ".join(str(path) for paths in configs[run.id].files().values() for path in paths)
            raise UserError(f"expected {names} as the sweep was planned with, got another content; start it again")


def _with_costs(row: MitigationRow, subject: Subject, edit: Edit, seconds: float) -> MitigationRow:
    """The row with the columns that a sweep's estimates use; `seconds` are those of its measurement, with the tests of robustness."""
    retain, plain = subject.data.retain, seconds - (row.seconds_robustness or 0.0)
    return replace(row, scores_shared=edit.shared, seconds_measure=plain, rows_retain=len(retain), row_tokens=retain.ids.shape[1])


def _ended(outcome: Outcome) -> tuple[Status, str]:
    if outcome.error is None:
        return "refused", "the corpus has no artifacts to forget"
    return ("refused" if type(outcome.error).__name__ == "Refused" else "failed"), _message(outcome.error)


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else "".join(traceback.format_exception_only(error)).strip()


def _let_go(error: Exception, device: str) -> None:
    """Drop a traceback's frames, which hold what may have filled the memory, and empty the device's cache."""
    error.__traceback__ = None
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
