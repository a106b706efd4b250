"""`tinymem mitigate` and `tinymem evaluate`: one checkpoint, on its own corpus or on any rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

from tinymem.data.corpus import Corpus
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError, described
from tinymem.evaluation.evaluator import Evaluator
from tinymem.hub.names import origin_of
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, row_id, run_call, subject_of_corpus, subject_of_rows
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.edited import edited_bytes, save_edited
from tinymem.models.weights import METADATA, weights_id
from tinymem.recipe.corpus_spec import Protocol
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.read import as_json
from tinymem.results.row import Identity, MitigationRow
from tinymem.results.share import ShareColumn
from tinymem.runs.own_rows import OwnRows, RowFiles, read_own_rows
from tinymem.runtime.device import describe_device, resolve_device
from tinymem.runtime.files import content_id
from tinymem.runtime.json import JsonObject
from tinymem.runtime.memory import refuse_beyond_disk
from tinymem.runtime.progress import Bar, Progress, progress_of
from tinymem.training.checkpoints import corpus_of, optimizer_state_of, recipe_of, run_name, without_places


@dataclass(frozen=True)
class Measuring:
    """Measurements chosen on the command line; None leaves the recipe's."""

    metrics: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    robustness: bool = False

    def request(self) -> MeasurementRequest:
        """The measurement request for rows without a recipe, which have one prompt length.

        Raises:
            UserError: further prompt lengths, which rows from files do not have.
        """
        if self.ks:
            raise UserError("expected --ks for a checkpoint's own corpus, got rows from files; give --prompt instead")
        return MeasurementRequest(self.metrics or (DEFAULT,), (), Robustness() if self.robustness else None)


class NotSaved(UserError):
    """An edited checkpoint that could not be written, with the result rows of the edit."""

    def __init__(self, message: str, rows: list[MitigationRow]) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True)
class _Changes:
    """What the command line changes of a checkpoint's recipe; None leaves it."""

    protocol: str | None = None
    forget_fraction: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.forget_fraction is not None and not 0 < self.forget_fraction <= 1:
            raise UserError(f"expected --forget-fraction above 0 and at most 1, got {self.forget_fraction:g}")


def mitigate_checkpoint(
    checkpoint: Path,
    call: MethodCall,
    *,
    out: Path | None = None,
    files: RowFiles | None = None,
    protocol: str | None = None,
    forget_fraction: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
    verify: bool = True,
    progress: Progress | bool = True,
) -> list[MitigationRow]:
    """Run one method on a checkpoint and write the edited checkpoint to `out`.

    Args:
        checkpoint: the folder.
        call: the method with its options.
        out: folder for the edited checkpoint.
        files: rows of one's own to forget and to keep, or the corpus, and the window; default: the checkpoint's corpus and window.
        protocol: paper or reference; default: the recipe's, or paper.
        forget_fraction: share of the memorized rows that the method is given; default: the recipe's, or a half.
        seed: of what is drawn; default: the recipe's, or 0.
        device: `auto`, `cpu` or `cuda`.
        measuring: metrics and tests.
        verify: as of `load_checkpoint`.
        progress: as of `tinymem.run`.

    Raises:
        UserError: bad input; also if the method refused or failed.
        NotSaved: the edited checkpoint could not be written.
    """
    device, files = resolve_device(device), files or RowFiles()
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new folder for --out, {out} exists; name another or remove it")
    if out is not None:
        refuse_beyond_disk(edited_bytes(checkpoint), out, "the edited checkpoint")
    loaded = load_checkpoint(checkpoint, device=device, copies=2, verify=verify)
    identity = _identity(loaded, checkpoint, device)
    measuring = measuring or Measuring()
    changes = _Changes(protocol, forget_fraction, seed)
    if files.given:
        subject, forgotten = _subject_of_files(loaded, checkpoint, files, changes, identity, measuring.request())
    else:
        subject, forgotten = _subject_of_own_corpus(loaded, checkpoint, files, changes, identity, measuring)
    if loaded.dtypes:
        subject = replace(subject, dtypes=loaded.dtypes)
    row = row_id(subject.identity, call, forgotten)
    with progress_of(progress).stage(f"mitigate {call.name}") as bar:
        outcome = run_call(subject, call, row=row, bar=bar)
    if outcome.model is None:
        assert outcome.error is not None
        if isinstance(outcome.error, UserError):
            raise outcome.error
        raise UserError(
            f"{call.name} failed: {described(outcome.error)}; Outcome.error of tinymem.mitigate holds the rest"
        ) from outcome.error
    if out is not None:
        origin = origin_of(checkpoint)
        edit: JsonObject = {"edited_from": identity.model_id, "mitigation": [*as_json(outcome.rows)]}
        metadata: JsonObject = {**_for_others(loaded), **edit, **({"origin": str(origin)} if origin else {})}
        try:
            save_edited(outcome.model, checkpoint, out, metadata=metadata)
        except UserError as error:
            raise NotSaved(str(error), outcome.rows) from error
    return outcome.rows


def _for_others(loaded: Checkpoint) -> JsonObject:
    """What a checkpoint says of itself, without places on its maker's machine."""
    values, recipe = loaded.metadata.as_json(), loaded.metadata.recipe
    return values if recipe is None else {**values, "recipe": without_places(recipe)}


def _identity(loaded: Checkpoint, checkpoint: Path, device: str) -> Identity:
    """Columns that all result rows of a checkpoint share."""
    return replace(
        checkpoint_columns(checkpoint, loaded.metadata, recipe_of(checkpoint, loaded.metadata)),
        n_parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        run=run_name(checkpoint),
        model_id=weights_id(checkpoint, loaded.hashes),
        corpus_sha256=loaded.metadata.corpus_sha256,
        device_type=device,
        device=describe_device(device),
    )


@dataclass(frozen=True)
class CheckpointMeasurement:
    """Memorization and performance of a checkpoint on its own corpus or any rows, as `tinymem evaluate` prints them."""

    checkpoint: str
    protocol: str
    prompt: int | None
    """Tokens given; None where rows of one's own have prompts of different lengths."""
    match: int
    memorized: dict[str, ShareColumn]
    """Share, count and scored rows, by artifact."""
    accuracy: float | None
    accuracy_count: int
    accuracy_tokens: int
    accuracy_ceiling: float | None
    accuracy_by_task: dict[str, JsonObject]
    """Share, count and scored tokens, by task."""
    perplexity: float | None
    exposure: list[JsonObject] | None
    """Exposure of every canary; None, and not printed, for a corpus without canaries."""
    metrics: dict[str, JsonObject]
    """The registered metrics by artifact and name."""
    device: str
    rows_left_out: int | None = None
    """Rows of files that hold nothing or are too short; None, and not printed, for a corpus."""
    commit: str | None = None
    """Commit of the Hub that the checkpoint was fetched at; None, and not printed, for a folder."""

    def as_dict(self) -> JsonObject:
        """The measurement as a dictionary that JSON can hold."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in there.items() if value is not None or name not in ("exposure", "rows_left_out", "commit")}


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    files: RowFiles | None = None,
    protocol: str | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
    verify: bool = True,
    progress: Progress | bool = True,
) -> CheckpointMeasurement:
    """Measure a checkpoint on its own corpus, or on rows from files; the arguments are as of `mitigate_checkpoint`.

    Raises:
        UserError: bad input.
    """
    device, files = resolve_device(device), files or RowFiles()
    loaded = load_checkpoint(checkpoint, device=device, verify=verify)
    with progress_of(progress).stage("evaluate") as bar:
        if files.given:
            return _measured_on_files(loaded, checkpoint, files, protocol, measuring or Measuring(), device, bar)
        recipe, corpus = own_corpus(loaded, checkpoint, files.corpus)
        recipe = _changed(recipe, files, measuring or Measuring(), _Changes(protocol))
        evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device, metrics=recipe.evaluation.metrics)
        window = (recipe.evaluation.prompt, recipe.evaluation.match)
        found = _measurement(loaded, checkpoint, evaluator, recipe.protocol, window, device, bar)
        return replace(found, exposure=_exposure_of_canaries(loaded, corpus, recipe))


def _measurement(
    loaded: Checkpoint, checkpoint: Path, evaluator: Evaluator, protocol: str, window: tuple[int | None, int], device: str, bar: Bar
) -> CheckpointMeasurement:
    measured, origin = evaluator.measure(loaded.model, bar), origin_of(checkpoint)
    return CheckpointMeasurement(
        checkpoint=str(origin or checkpoint),
        protocol=protocol,
        prompt=window[0],
        match=window[1],
        memorized={kind: measured.memorized_share(kind).as_dict() for kind in measured.memorized},
        accuracy=measured.accuracy.share,
        accuracy_count=measured.accuracy.count,
        accuracy_tokens=measured.accuracy.rows,
        accuracy_ceiling=evaluator.ceiling.share if evaluator.ceiling else None,
        accuracy_by_task={task: share.of_tokens() for task, share in measured.accuracy_by_task.items()},
        perplexity=measured.perplexity,
        exposure=None,
        metrics=measured.metrics(),
        device=describe_device(device),
        commit=origin.commit if origin else None,
    )


def _measured_on_files(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, protocol: str | None, measuring: Measuring, device: str, bar: Bar
) -> CheckpointMeasurement:
    """Memorization of all rows to forget, and perplexity of all rows to keep."""
    recipe = recipe_of(checkpoint, loaded.metadata)
    own = _own_rows(loaded, checkpoint, files, recipe)
    chosen = _protocol(protocol, recipe)
    evaluator = Evaluator.of_rows(
        own.forget.to(device), own.retain.to(device), metrics=measuring.request().metrics, forbid=_forbidden(chosen, checkpoint)
    )
    found = _measurement(loaded, checkpoint, evaluator, chosen, (own.prompt, own.match), device, bar)
    return replace(found, rows_left_out=own.left_out)


def _exposure_of_canaries(loaded: Checkpoint, corpus: Corpus, recipe: Recipe) -> list[JsonObject] | None:
    """The exposure of each of the corpus's canaries, if it has any."""
    if "canary" not in corpus.planted:
        return None
    from tinymem.evaluation.exposure import exposures

    return [e.as_dict() for e in exposures(loaded.model, corpus, seed=recipe.seed)]


def own_corpus(loaded: Checkpoint, checkpoint: Path, named: Path | None = None) -> tuple[Recipe, Corpus]:
    """The recipe and corpus of a checkpoint; `named`: a folder of the corpus, or its text (`training.checkpoints.corpus_of`).

    Raises:
        UserError: a checkpoint without its recipe, no corpus, or another one than it was trained on.
    """
    recipe = recipe_of(checkpoint, loaded.metadata)
    if recipe is None:
        raise UserError(f"{checkpoint} has no {METADATA} with its recipe; say which rows to use with --forget and --retain")
    return recipe, corpus_of(checkpoint, recipe, loaded.metadata.corpus_sha256, named)


def _changed(recipe: Recipe, files: RowFiles, measuring: Measuring, changes: _Changes) -> Recipe:
    """The recipe with what the command line gives: window, metrics, protocol and forget fraction; its seed is the corpus's, and stays."""
    wanted = {"prompt": files.prompt, "match": files.match, "metrics": measuring.metrics, "ks": measuring.ks}
    values = recipe.model_dump(mode="json")
    values["evaluation"] |= {key: value for key, value in wanted.items() if value is not None}
    values["protocol"] = changes.protocol or recipe.protocol
    if changes.forget_fraction is not None:
        values["mitigation"]["forget_fraction"] = changes.forget_fraction
    if measuring.robustness:
        values["mitigation"]["robustness"] = values["mitigation"]["robustness"] or True
    return parse_recipe(values)


def _protocol(chosen: str | None, recipe: Recipe | None) -> Protocol:
    known: tuple[Protocol, ...] = get_args(Protocol)
    wanted = chosen or (recipe.protocol if recipe else "paper")
    found = next((protocol for protocol in known if protocol == wanted), None)
    if found is None:
        raise UserError(f"expected --protocol {' or '.join(known)}, got '{wanted}'")
    return found


def _forbidden(protocol: Protocol, checkpoint: Path) -> int | None:
    """The token that decoding may not produce: the checkpoint's EOS under protocol reference, if it has one."""
    return min(ModelTokens(checkpoint).eos, default=None) if protocol == "reference" else None


def _subject_of_own_corpus(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, changes: _Changes, identity: Identity, measuring: Measuring
) -> tuple[Subject, str]:
    recipe, corpus = own_corpus(loaded, checkpoint, files.corpus)
    recipe = _changed(recipe, files, measuring, changes)
    if changes.seed is not None:  # after the corpus: this seed is the mitigation's
        recipe = recipe.model_copy(update={"seed": changes.seed})
    optimizer = optimizer_state_of(checkpoint, loaded.metadata)
    identity = replace(identity, protocol=recipe.protocol, forget_fraction=recipe.mitigation.forget_fraction)
    fraction = [] if changes.forget_fraction is None else [changes.forget_fraction]
    forgotten = content_id([None, None, files.prompt, files.match, *fraction])
    return subject_of_corpus(loaded.model, corpus, recipe, identity=identity, optimizer_state=optimizer), forgotten


def _subject_of_files(
    loaded: Checkpoint, checkpoint: Path, files: RowFiles, changes: _Changes, identity: Identity, request: MeasurementRequest
) -> tuple[Subject, str]:
    if files.forget is None or files.retain is None:
        raise UserError("expected both --forget and --retain, got one of them; the retain rows say what must not be lost")
    recipe = recipe_of(checkpoint, loaded.metadata)
    own, protocol = _own_rows(loaded, checkpoint, files, recipe), _protocol(changes.protocol, recipe)
    own_fraction = recipe.mitigation.forget_fraction if recipe else 0.5
    fraction = own_fraction if changes.forget_fraction is None else changes.forget_fraction
    identity = replace(
        identity, protocol=protocol, forget=None, forget_fraction=fraction, prompt=own.prompt, match=own.match, rows_left_out=own.left_out
    )
    subject = subject_of_rows(
        loaded.model, own.forget, own.retain, seed=changes.seed or 0, identity=identity, request=request,
        protocol=protocol, forbid=_forbidden(protocol, checkpoint), forget_fraction=fraction,
    )  # fmt: skip
    memorized = subject.before.memorized_share("rows")
    if memorized.count < memorized.rows:
        warnings.warn(
            f"{memorized.rows - memorized.count} of {memorized.rows} rows to forget are not memorized by the model",
            stacklevel=2,
        )
    return subject, content_id([own.digest, fraction])


def _own_rows(loaded: Checkpoint, checkpoint: Path, files: RowFiles, recipe: Recipe | None) -> OwnRows:
    size = next(p for n, p in loaded.model.named_parameters() if p.dim() == 2).shape[0]  # the token embedding comes first
    defaults = (recipe.evaluation.prompt, recipe.evaluation.match) if recipe else None
    return read_own_rows(files, checkpoint, size, defaults)
