"""`tinymem mitigate` and `tinymem evaluate`: one checkpoint, on its own corpus or on any rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from tinymem.data.corpus import Corpus
from tinymem.data.rows import Rows
from tinymem.data.rows_file import read_rows
from tinymem.errors import UserError, described
from tinymem.evaluation.evaluator import Evaluator
from tinymem.mitigation.method import MethodCall
from tinymem.mitigation.requests import MeasurementRequest
from tinymem.mitigation.run import Subject, row_id, run_call, subject_of_corpus, subject_of_rows
from tinymem.models.checkpoint import METADATA, WEIGHTS, Checkpoint, load_checkpoint, read_tokenizer_files, save_checkpoint, weights_id
from tinymem.recipe.evaluation import DEFAULT, Robustness
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.results.checkpoint_columns import checkpoint_columns
from tinymem.results.read import as_json
from tinymem.results.row import Identity, MitigationRow
from tinymem.results.share import ShareColumn
from tinymem.runtime.device import describe_device, resolve_device
from tinymem.runtime.files import content_id, file_sha256
from tinymem.runtime.json import JsonObject
from tinymem.training.checkpoints import corpus_of, optimizer_state_of, run_of

DEFAULT_WINDOW = 50


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


def mitigate_checkpoint(
    checkpoint: Path,
    call: MethodCall,
    *,
    out: Path | None = None,
    forget: Path | None = None,
    retain: Path | None = None,
    prompt: int | None = None,
    match: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
) -> list[MitigationRow]:
    """Run one method on a checkpoint and write the edited checkpoint to `out`.

    Raises:
        UserError: bad input; also if the method refused or failed.
    """
    device = resolve_device(device)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"expected a new folder for --out, {out} exists; name another or remove it")
    loaded = load_checkpoint(checkpoint, device=device)
    identity = _identity(loaded, checkpoint, device)
    measuring = measuring or Measuring()
    if forget or retain:
        subject = _subject_of_files(loaded, checkpoint, forget, retain, prompt, match, seed or 0, identity, measuring.request())
    else:
        subject = _subject_of_own_corpus(loaded, checkpoint, prompt, match, seed, identity, measuring)
    row = row_id(subject.identity, call, content_id([_digest(forget), _digest(retain), prompt, match]))
    outcome = run_call(subject, call, row=row)
    if outcome.model is None:
        assert outcome.error is not None
        if isinstance(outcome.error, UserError):
            raise outcome.error
        raise UserError(
            f"{call.name} failed: {described(outcome.error)}; Outcome.error of tinymem.mitigate holds the rest"
        ) from outcome.error
    if out is not None:
        metadata = {**loaded.metadata, "edited_from": identity.model_id, "mitigation": as_json(outcome.rows)}
        save_checkpoint(outcome.model, out, metadata=metadata, tokenizer_files=read_tokenizer_files(checkpoint))
    return outcome.rows


def _identity(loaded: Checkpoint, checkpoint: Path, device: str) -> Identity:
    """Columns that all result rows of a checkpoint share."""
    recipe = parse_recipe(loaded.metadata["recipe"], run_of(checkpoint)) if "recipe" in loaded.metadata else None
    return replace(
        checkpoint_columns(checkpoint, loaded.metadata, recipe),
        run=str(checkpoint),
        model_id=weights_id(checkpoint) if (checkpoint / WEIGHTS).is_file() else checkpoint.name,
        corpus_sha256=loaded.metadata.get("corpus_sha256"),
        device_type=device,
        device=describe_device(device),
    )


@dataclass(frozen=True)
class CheckpointMeasurement:
    """Memorization and performance of a checkpoint on its own corpus, as `tinymem evaluate` prints them."""

    checkpoint: str
    protocol: str
    prompt: int
    match: int
    memorized: dict[str, ShareColumn]
    """Share, count and scored rows, by artifact."""
    accuracy: float | None
    accuracy_ceiling: float | None
    accuracy_by_task: dict[str, float | None]
    perplexity: float | None
    exposure: list[JsonObject] | None
    """Exposure of every canary; None, and not printed, for a corpus without canaries."""
    metrics: dict[str, JsonObject]
    """The registered metrics by artifact and name."""
    device: str

    def as_dict(self) -> JsonObject:
        """The measurement as a dictionary that JSON can hold."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "exposure" or self.exposure is not None}


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    prompt: int | None = None,
    match: int | None = None,
    protocol: str | None = None,
    device: str = "auto",
    measuring: Measuring | None = None,
) -> CheckpointMeasurement:
    """Measure a checkpoint on its own corpus."""
    device = resolve_device(device)
    loaded = load_checkpoint(checkpoint, device=device)
    recipe, corpus = own_corpus(loaded, checkpoint)
    recipe = _with_window(recipe, prompt, match, measuring)
    if protocol is not None:
        recipe = parse_recipe({**recipe.model_dump(mode="json"), "protocol": protocol})
    evaluator = Evaluator.of_corpus(corpus, recipe.evaluation, recipe.protocol, device=device, metrics=recipe.evaluation.metrics)
    measured = evaluator.measure(loaded.model)
    return CheckpointMeasurement(
        checkpoint=str(checkpoint),
        protocol=recipe.protocol,
        prompt=recipe.evaluation.prompt,
        match=recipe.evaluation.match,
        memorized={kind: measured.memorized_share(kind).as_dict() for kind in measured.memorized},
        accuracy=measured.accuracy.share,
        accuracy_ceiling=evaluator.ceiling.share if evaluator.ceiling else None,
        accuracy_by_task={task: share.share for task, share in measured.accuracy_by_task.items()},
        perplexity=measured.perplexity,
        exposure=_exposure_of_canaries(loaded, corpus, recipe),
        metrics=measured.metrics(),
        device=describe_device(device),
    )


def _exposure_of_canaries(loaded: Checkpoint, corpus: Corpus, recipe: Recipe) -> list[JsonObject] | None:
    """The exposure of each of the corpus's canaries, if it has any."""
    if "canary" not in corpus.planted:
        return None
    from tinymem.evaluation.exposure import exposures

    return [e.as_dict() for e in exposures(loaded.model, corpus, seed=recipe.seed)]


def own_corpus(loaded: Checkpoint, checkpoint: Path) -> tuple[Recipe, Corpus]:
    """The recipe and corpus of a checkpoint: the corpus in its run's folder, or generated anew from the recipe.

    Raises:
        UserError: a checkpoint without its recipe, or another corpus than it was trained on.
    """
    if "recipe" not in loaded.metadata:
        raise UserError(f"{checkpoint} has no {METADATA} with its recipe; say which rows to use with --forget and --retain")
    recipe = parse_recipe(loaded.metadata["recipe"], run_of(checkpoint))
    return recipe, corpus_of(checkpoint, recipe, loaded.metadata.get("corpus_sha256"))


def _with_window(recipe: Recipe, prompt: int | None, match: int | None, measuring: Measuring | None = None) -> Recipe:
    """The recipe with the window and the metrics of the command line, where given."""
    measuring = measuring or Measuring()
    wanted = {"prompt": prompt, "match": match, "metrics": measuring.metrics, "ks": measuring.ks}
    values = recipe.model_dump(mode="json")
    values["evaluation"] |= {key: value for key, value in wanted.items() if value is not None}
    if measuring.robustness:
        values["mitigation"]["robustness"] = values["mitigation"]["robustness"] or True
    return parse_recipe(values)


def _subject_of_own_corpus(
    loaded: Checkpoint, checkpoint: Path, prompt: int | None, match: int | None, seed: int | None, identity: Identity, measuring: Measuring
) -> Subject:
    recipe, corpus = own_corpus(loaded, checkpoint)
    recipe = _with_window(recipe, prompt, match, measuring)
    if seed is not None:  # after the corpus: this seed is the mitigation's
        recipe = recipe.model_copy(update={"seed": seed})
    optimizer = optimizer_state_of(checkpoint, loaded.metadata)
    return subject_of_corpus(loaded.model, corpus, recipe, identity=identity, optimizer_state=optimizer)


def _subject_of_files(
    loaded: Checkpoint,
    checkpoint: Path,
    forget: Path | None,
    retain: Path | None,
    prompt: int | None,
    match: int | None,
    seed: int,
    identity: Identity,
    request: MeasurementRequest,
) -> Subject:
    if forget is None or retain is None:
        raise UserError("expected both --forget and --retain, got one of them; the retain rows say what must not be lost")
    prompt = prompt or DEFAULT_WINDOW
    forget_ids, retain_ids = read_rows(forget, checkpoint), read_rows(retain, checkpoint)
    end = min(prompt + (match or DEFAULT_WINDOW), forget_ids.shape[1])
    if prompt >= forget_ids.shape[1]:
        raise UserError(f"expected rows longer than the prompt of {prompt} tokens in {forget}, got {forget_ids.shape[1]}; lower --prompt")
    _check_vocabulary(loaded, forget_ids, forget)
    _check_vocabulary(loaded, retain_ids, retain)
    if retain_ids.shape[1] < end:
        raise UserError(
            f"expected rows of at least {end} tokens (prompt and match) in {retain}, got {retain_ids.shape[1]}; use longer rows"
        )
    length = min(forget_ids.shape[1], retain_ids.shape[1])  # methods put both in one batch
    forget_rows, retain_rows = (Rows.of(ids[:, :length], prompt, end) for ids in (forget_ids, retain_ids))  # NeMo compares their windows
    return subject_of_rows(loaded.model, forget_rows, retain_rows, seed=seed, identity=identity, request=request)


def _digest(path: Path | None) -> str | None:
    return file_sha256(path) if path else None


def _check_vocabulary(loaded: Checkpoint, ids: torch.Tensor, path: Path) -> None:
    size = next(p for n, p in loaded.model.named_parameters() if p.dim() == 2).shape[0]  # the token embedding comes first
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise UserError(f"expected token ids from 0 to {size - 1} in {path}, got {low if low < 0 else high}; is it another tokenizer's?")
