"""`tinymem show`: what a model says to the prompts of memorized rows, before and after edits, and to any prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from tinymem.data.own_rows import DEFAULT_WINDOW, RowFiles
from tinymem.data.rows import Rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.evaluation.evaluator import Evaluator
from tinymem.mitigation.files_subject import forbidden_of, own_rows, protocol_of
from tinymem.mitigation.memory import workload_of
from tinymem.mitigation.method import MethodCall, parse_call
from tinymem.mitigation.run import Subject, chosen, run_call, subject_of_corpus, subject_of_rows
from tinymem.mitigation.shown import TRAINED_MODEL, Decode, Prompts, prompts_of, prompts_of_rows, prompts_of_subject
from tinymem.models.adapters import refuse_longer_rows
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.weights import CONFIG
from tinymem.recipe.recipe import Recipe
from tinymem.report.cells import labels, labels_by_id
from tinymem.results.row import MeasuredRow, MitigationRow
from tinymem.results.run_folder import RECIPE, RESULTS, read_rows_file
from tinymem.results.shown import KEPT, TRAINED, ShownRow, read_shown, write_shown
from tinymem.runs.subjects import own_corpus
from tinymem.runtime.device import describe_device, resolve_device
from tinymem.runtime.progress import Progress, progress_of
from tinymem.training.checkpoints import optimizer_state_of, recipe_of

FEW = 3
"""Names of methods that a note can hold."""


@dataclass(frozen=True)
class Asked:
    """What `tinymem show` is asked for.

    Attributes:
        count: rows of each artifact; None: as many as a run's folder keeps.
        prompt: a text to continue, instead of rows.
        methods: names of methods to apply.
        files: rows of one's own, with the window and the corpus.
        bos: whether the model's first token is put before `prompt`.
        device: `auto`, `cpu` or `cuda`.
        verify: as of `load_checkpoint`.
    """

    count: int | None = None
    prompt: str | None = None
    methods: tuple[str, ...] = ()
    files: RowFiles = field(default_factory=RowFiles)
    bos: bool = False
    device: str = "auto"
    verify: bool = True

    @property
    def is_stored(self) -> bool:
        """Whether what a run's folder keeps can answer it."""
        files = self.files
        other = (self.prompt is not None, self.methods, files.given, files.match, files.corpus, (self.count or 0) > KEPT)
        return not any(other)


def show(place: Path, asked: Asked, progress: Progress | bool = True) -> tuple[list[ShownRow], list[str]]:
    """The rows with what each model says, and notes on where that is from.

    Args:
        place: folder of a run or of a checkpoint.
        asked: what to show.
        progress: as of `tinymem.run`.

    Raises:
        UserError: bad input, or a method that refused or failed.
    """
    run = place if (place / RECIPE).is_file() and not (place / CONFIG).is_file() else None  # a shipped checkpoint has its recipe too
    rows = read_rows_file(place / RESULTS) if run and (place / RESULTS).is_file() else []
    if run and asked.is_stored and (kept := stored(run, rows)):
        count = KEPT if asked.count is None else asked.count
        first = [row for row in kept if row in [other for other in kept if other.artifact == row.artifact][:count]]
        return first, list(_notes_of_stored(kept, rows))
    checkpoint = place / "checkpoint" if run else place
    if run and not checkpoint.is_dir():
        raise UserError(f"expected a trained run at {run}, found no checkpoint in it; `tinymem run` trains it")
    return _Making(checkpoint, asked, rows, progress_of(progress)).made()


def stored(run: Path, rows: Sequence[MeasuredRow]) -> list[ShownRow]:
    """What the folder of a run keeps of the models of these result rows; empty where it keeps nothing."""
    return read_shown(run, list(labels_by_id(rows).items()))


@dataclass(frozen=True)
class KeptGenerations:
    """What the folder of a run keeps of each model, to be read: generations for a few rows of each artifact."""

    run: Path
    prompts: Prompts

    @staticmethod
    def of(run: Path, subject: Subject) -> KeptGenerations:
        """Choose the rows, and keep what the trained model says."""
        tokens = ModelTokens(run / "checkpoint")
        made = KeptGenerations(run, prompts_of_subject(subject, KEPT, _decoder(tokens), tokens.eos))
        made.keep(TRAINED, subject.model)
        return made

    def keep(self, name: str, model: nn.Module | None) -> None:
        """Keep what a model says under `trained` or the id of its result row; nothing where a method gave no model."""
        if model is not None:
            write_shown(self.run, name, self.prompts.said_by(model))


def _notes_of_stored(kept: Sequence[ShownRow], rows: Sequence[MeasuredRow]) -> Iterator[str]:
    yield "Kept by the run when it measured each model."
    there = {said.model for row in kept for said in row.said}
    if missing := [label for label in labels_by_id(rows).values() if label not in there]:
        names = list(dict.fromkeys(missing))
        what = ", ".join(names) if len(names) <= FEW else f"{', '.join(names[:FEW])} and {len(names) - FEW} more"
        yield f"Without text: {what}, measured by a version that kept none; --method NAME applies a method again and shows what it says."


def _decoder(tokens: ModelTokens) -> Decode:
    return lambda ids: str(tokens.tokenizer.decode(list(ids), skip_special_tokens=False))


def _model_of(loaded: Checkpoint) -> str:
    """What a checkpoint's model is called: the trained one, or the one that a method left."""
    methods = dict.fromkeys(str(row.get("method")) for row in loaded.metadata.mitigation or ())
    return f"edited by {', '.join(methods)}" if methods else TRAINED_MODEL


def _options(call: MethodCall) -> str:
    """The options that characterize a method's run, ` with ratio=0.05`; empty where all are at their defaults."""
    found = ", ".join(f"{key}={value}" for key, value in chosen(call.config).items())
    return f" with {found}" if found else ""


@dataclass(frozen=True)
class _Making:
    """Generations that are made now, from a checkpoint."""

    checkpoint: Path
    asked: Asked
    rows: Sequence[MeasuredRow]
    progress: Progress

    def made(self) -> tuple[list[ShownRow], list[str]]:
        if self.asked.prompt is not None and self.asked.files.given and not self.asked.methods:
            raise UserError(
                "expected --prompt TEXT, or rows with --forget, got both; where rows of a file are to have prompts of another length, "
                "write them as `prompt` and `target`"
            )
        device = resolve_device(self.asked.device)
        calls = list(self._calls())
        needed = partial(workload_of(self.checkpoint, self.asked.files, device).editing, calls=[call for _, call in calls])
        loaded = load_checkpoint(self.checkpoint, device=device, needed=needed, verify=self.asked.verify)
        recipe = recipe_of(self.checkpoint, loaded.metadata)
        subject = self._subject(loaded, recipe) if calls or not (self.asked.prompt is not None or self.asked.files.given) else None
        prompts = self._prompts(loaded, recipe, subject)
        refuse_longer_rows(loaded.model, int(prompts.rows.end.max()) if len(prompts.rows) else 1)
        model = _model_of(loaded)
        found, notes = prompts.said_by(loaded.model, model), [f"Made now, on {describe_device(device)}: {model}."]
        for label, call in calls:
            assert subject is not None
            found, said = self._with_edit(subject, prompts, found, label, call)
            notes += said
        if self.rows and not calls:
            notes.append("A run keeps no edited weights: --method NAME applies one of its methods again, with the options of its rows.")
        return found, notes

    def _calls(self) -> Iterator[tuple[str, MethodCall]]:
        """Yield the methods with the options of the run's rows, or with their defaults where it has none."""
        known = list(zip(self.rows, labels(list(self.rows)), strict=True))
        for name in self.asked.methods:
            of_run = {row.id: (label, row.options) for row, label in known if row.method == name and row.is_ok}
            for label, options in of_run.values() or [(name, {})]:
                yield label, parse_call(name, options)

    def _subject(self, loaded: Checkpoint, recipe: Recipe | None) -> Subject:
        """The model with its rows, measured as a run measures it."""
        self.progress.say("measuring the model, to know which rows it memorized")
        files = self.asked.files
        if files.given:
            if files.forget is None or files.retain is None:
                raise UserError("expected both --forget and --retain with --method, got one of them; the retain rows say what must stay")
            own, protocol = own_rows(loaded, self.checkpoint, files, recipe), protocol_of(None, recipe)
            fraction = recipe.mitigation.forget_fraction if recipe else 0.5
            barred = forbidden_of(protocol, self.checkpoint, loaded.model)
            return self._rounded(
                loaded, subject_of_rows(loaded.model, own.forget, own.retain, protocol=protocol, forbid=barred, forget_fraction=fraction)
            )
        known, corpus = own_corpus(loaded, self.checkpoint, files.corpus)
        if files.match is not None:
            known = known.model_copy(update={"evaluation": known.evaluation.model_copy(update={"match": files.match})})
        state = optimizer_state_of(self.checkpoint, loaded.metadata)
        return self._rounded(loaded, subject_of_corpus(loaded.model, corpus, known, optimizer_state=state))

    def _rounded(self, loaded: Checkpoint, subject: Subject) -> Subject:
        return replace(subject, dtypes=loaded.dtypes) if loaded.dtypes else subject

    def _prompts(self, loaded: Checkpoint, recipe: Recipe | None, subject: Subject | None) -> Prompts:
        tokens = ModelTokens(self.checkpoint)
        decode, eos, count = _decoder(tokens), tokens.eos, self.asked.count or KEPT
        barred = forbidden_of(protocol_of(None, recipe), self.checkpoint, loaded.model)
        if self.asked.prompt is not None:
            return self._prompt(tokens, recipe, loaded.model)
        if subject is not None and not self.asked.files.given:
            of_edited = bool(loaded.metadata.mitigation) and not self.asked.methods  # its method was given other rows than one would be now
            return prompts_of_subject(subject, count, decode, eos, parted=not of_edited)
        own = own_rows(loaded, self.checkpoint, self.asked.files, recipe)
        if not len(own.forget):
            raise UserError("expected --forget FILE with the rows to show, got none")
        rows = own.forget.to(next(loaded.model.parameters()).device)
        evaluator = Evaluator.of_rows(rows, own.retain.to(rows.ids.device), forbid=barred)
        return prompts_of_rows(rows, evaluator.measure(loaded.model).memorized["rows"], count, decode, eos, barred)

    def _prompt(self, tokens: ModelTokens, recipe: Recipe | None, model: nn.Module) -> Prompts:
        """A text to continue by as many tokens as the test of memorization asks for."""
        ids = [*(tokens.first() if self.asked.bos else ()), *tokens.encode([self.asked.prompt or ""])[0]]
        if not ids:
            raise UserError("expected a --prompt of at least one token, got none")
        match = self.asked.files.match or (recipe.evaluation.match if recipe else DEFAULT_WINDOW)
        whole = torch.tensor([[*ids, *[0] * match]], device=next(model.parameters()).device)
        barred = forbidden_of(protocol_of(None, recipe), self.checkpoint, model)
        prompts = prompts_of([(Rows.of(whole, len(ids), len(ids) + match), "prompt", 0, "")], _decoder(tokens), tokens.eos, barred)
        return replace(prompts, has_target=False, shown=tuple(replace(row, target="") for row in prompts.shown))

    def _with_edit(
        self, subject: Subject, prompts: Prompts, found: list[ShownRow], label: str, call: MethodCall
    ) -> tuple[list[ShownRow], list[str]]:
        """The rows with what the model says after a method, and notes about that."""
        outcome = run_call(subject, call, progress=self.progress)
        if outcome.model is None:
            raise UserError(f"{label} gave no model: {outcome.rows[0].message}")
        edited = outcome.model
        said = prompts.said_by(edited, label) if prompts.has_target else prompts.said_against(subject.model, edited, label)
        joined = [replace(row, said=(*row.said, *more.said)) for row, more in zip(found, said, strict=True)]
        return joined, [f"Made now: {label}, applied to the model again{_options(call)}.", *self._moved(label, outcome.rows)]

    def _moved(self, label: str, made: Sequence[MitigationRow]) -> Iterator[str]:
        """Yield a note where the edit that was made again is not that of the run's row."""
        for row in made:
            for known in self.rows:
                same = (known.method, known.config, known.artifact) == (row.method, row.config, row.artifact)
                counts = known.memorized_count_after, row.memorized_count_after
                if same and counts[0] is not None and counts[0] != counts[1]:
                    yield (
                        f"Not the edit of the run's row: {label} left {counts[1]} of {row.rows_scored} {row.artifact} rows memorized now, "
                        f"{counts[0]} then (another machine, number of threads, or version)."
                    )
