"""`tinymem localize layers`: in which layers a model memorized its planted rows; one file of rows a technique, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from tinymem.data.artifact import artifact_of
from tinymem.data.corpus import Corpus
from tinymem.errors import UserError, no_checkpoint
from tinymem.evaluation.probes import make_probes
from tinymem.localization.layers.findings import Finding
from tinymem.localization.layers.foreign import Contexts, layers_of
from tinymem.localization.layers.sequences import Models, PlantedRows, planted_rows_of, sequence_subject
from tinymem.localization.layers.subject import LayeredModel, LayerSubject
from tinymem.localization.layers.techniques import Options, findings
from tinymem.mitigation.files_subject import identity_of
from tinymem.mitigation.run import versions
from tinymem.models.adapters import vocabulary_of
from tinymem.models.checkpoint import Checkpoint, load_checkpoint
from tinymem.models.fingerprint import fingerprint, first_change
from tinymem.models.gpt2 import GPT
from tinymem.models.metadata import read_metadata
from tinymem.models.weights import CONFIG, weights_id
from tinymem.recipe.layers import LayersRecipe, Technique
from tinymem.recipe.recipe import Recipe
from tinymem.results.localization import read_localization, rows_file, write_localization
from tinymem.results.row import Identity, LocalizationRow
from tinymem.runs.planted_files import PlantedFiles, planted_rows_from
from tinymem.runs.subjects import own_corpus
from tinymem.runtime.device import resolve_device
from tinymem.runtime.files import content_id, require_writable
from tinymem.runtime.json import Json, JsonObject
from tinymem.runtime.progress import Progress
from tinymem.training.checkpoints import recipe_of, run_name, run_of
from tinymem.training.regularizers.planted_layers import PlantedLayersSection
from tinymem.training.start import fresh_model


@dataclass(frozen=True)
class OtherModels:
    """Checkpoint folders of the models that the techniques compare with; None: found or made from the model's run.

    Attributes:
        counterfactual: trained alike on clean counterparts; beside the run of a recipe with `counterfactual: true`.
        start: what both were trained from; the untrained model of the recipe, or the last kept epoch that no planted row had changed yet.
        early: an earlier epoch that knew the planted rows; the first of the run's kept epochs that does, or the model itself.
    """

    counterfactual: Path | None = None
    start: Path | None = None
    early: Path | None = None

    def names(self) -> JsonObject:
        """Name of each checkpoint that was given, with its epoch where that is not the last."""
        return {role: place and _name_of(place) for role, place in vars(self).items()}


PUBLISHED_RATE = 3e-5
"""Learning rate of retraining where no recipe says another."""
ORIGIN = ("_name_or_path", "transformers_version", "dtype", "use_cache")
"""Keys of a configuration of transformers that change no result."""


@dataclass(frozen=True)
class Ground:
    """What is looked for in a model, and what it is compared with.

    Attributes:
        rows: that it was trained on.
        kind: the artifact's, or a name for it.
        counterfactual: folder of the model without planted rows.
        start: folder of the model that both began with; None: `fresh` is it.
        learning_rate: of retraining where the options name none.
        fresh: the untrained model.
        control: layers that alone could learn planted rows.
        depends: what ids depend on besides the models.
    """

    rows: PlantedRows
    kind: str
    counterfactual: Path
    start: Path | None
    learning_rate: float
    fresh: nn.Module | None = None
    control: tuple[int, ...] = ()
    depends: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """What result rows say of where they are from, and what their ids depend on besides the recipe and the technique."""

    identity: Identity
    artifact: str
    depends: Json
    settings: JsonObject | None = None
    kept: tuple[str, ...] = ()
    """Ids of the weights of earlier epochs, one of which forgetting gradients are taken at."""


def localize_layers(
    checkpoint: Path,
    recipe: LayersRecipe,
    *,
    out: Path,
    others: OtherModels | None = None,
    corpus: Path | None = None,
    files: PlantedFiles | None = None,
    device: str = "auto",
    verify: bool = True,
    progress: Progress | None = None,
) -> list[LocalizationRow]:
    """Run techniques on a checkpoint; what the folder already has is not made again.

    Args:
        checkpoint: its folder, of any registered family; of ours with its corpus in its run's folder or where `corpus` says.
        recipe: techniques and options.
        out: folder of the rows (`localization/<id>.json`); several models may share one.
        others: the models to compare with.
        corpus: the checkpoint's corpus, or the text that it was made of.
        files: rows in place of the corpus; then `others` has to name a counterfactual and a start.
        device: `auto`, `cpu` or `cuda`.
        verify: whether weights must have the hashes that their folders hold.
        progress: where progress is shown.

    Raises:
        UserError: no recipe and corpus, nor rows from files; no counterfactual; or too little that was memorized.
    """
    device, others = resolve_device(device), others or OtherModels()
    if missing := [place for place in vars(others).values() if place and not (place / CONFIG).is_file()]:
        raise no_checkpoint(missing[0])
    loaded, rng = load_checkpoint(checkpoint, device=device, verify=verify), np.random.default_rng(recipe.seed)
    if files and files.given:
        ground = _of_files(loaded, checkpoint, recipe, others, files, rng)
    else:
        ground = _of_corpus(loaded, checkpoint, recipe, others, corpus, rng)
    found = [load_checkpoint(place, device=device, verify=verify) if place else None for place in (ground.counterfactual, ground.start)]
    fresh = None if ground.fresh is None else ground.fresh.to(device)
    kept = _kept(checkpoint) if "forgetting-gradients" in recipe.techniques and not others.early else []
    contexts: Contexts = {}
    models = Models(
        layers_of(loaded.model, contexts),
        _layers(found[0], ground.counterfactual, loaded, contexts),
        _layers(found[1], ground.start, loaded, contexts) if fresh is None else layers_of(fresh, contexts),
        _checkpoints([others.early] if others.early else kept, loaded, device, contexts),
        ground.control,
    )
    subject = sequence_subject(models, ground.rows, recipe, rng, next(loaded.model.parameters()).device)
    identity = replace(identity_of(loaded, checkpoint, device), seed=recipe.seed)
    compared: list[Json] = [weights_id(place) if place else None for place in (ground.counterfactual, ground.start, others.early)]
    named = {**others.names(), "planted": files.planted.name if files and files.planted else None}
    origin = Origin(identity, ground.kind, [ground.kind, *compared, *ground.depends], named, tuple(map(weights_id, kept)))
    options = Options.of(recipe, ground.learning_rate)
    watched = (loaded.model,) if fresh is None else (loaded.model, fresh)
    return run_techniques(subject, recipe, options, origin, out, progress or Progress(), watched=watched)


def _of_corpus(
    loaded: Checkpoint, checkpoint: Path, recipe: LayersRecipe, others: OtherModels, corpus: Path | None, rng: np.random.Generator
) -> Ground:
    """The planted rows of a checkpoint's own corpus."""
    if recipe_of(checkpoint, loaded.metadata) is None:
        raise UserError(f"expected a checkpoint with its recipe, got {checkpoint}; name its rows with --planted, --original and --clean")
    training, rows = own_corpus(loaded, checkpoint, corpus)
    kind, start = planted_kind(rows, recipe.artifact), others.start or common_start(checkpoint, training)
    probe = make_probes(rows, training.evaluation, training.protocol)[kind]
    return Ground(
        planted_rows_of(rows, kind, probe, recipe, rng),
        kind,
        counterfactual_of(checkpoint, training, others.counterfactual),
        start,
        training.training.learning_rate,
        fresh=None if start else fresh_model(training, rows.row_tokens, rows),
        control=control_of(training),
    )


def _of_files(
    loaded: Checkpoint, checkpoint: Path, recipe: LayersRecipe, others: OtherModels, files: PlantedFiles, rng: np.random.Generator
) -> Ground:
    """Planted rows of files, for a model of any family."""
    if others.counterfactual is None or others.start is None:
        option = "--start" if others.counterfactual else "--counterfactual"
        raise UserError(f"expected {option} with rows from files, got none; name the model's folder")
    rows, digest = planted_rows_from(files, checkpoint, vocabulary_of(loaded.model), recipe.rows, rng)
    return Ground(rows, recipe.artifact or "rows", others.counterfactual, others.start, PUBLISHED_RATE, depends=[digest])


def run_techniques(
    subject: LayerSubject,
    recipe: LayersRecipe,
    options: Options,
    origin: Origin,
    out: Path,
    progress: Progress,
    *,
    watched: tuple[nn.Module, ...] = (),
) -> list[LocalizationRow]:
    """Run the recipe's techniques on any subject, those without a result file alone, and read the rows of all.

    A technique that cannot say anything of a subject leaves one row with status `refused` and the reason.

    Args:
        subject: models and decisions.
        recipe: techniques and options.
        options: of the techniques.
        origin: what the rows share.
        out: folder of the rows.
        progress: where progress is shown.
        watched: models that must stay as they are.

    Raises:
        UserError: a technique changed a watched model.
    """
    require_writable(out)
    before, wanted = [fingerprint(model) for model in watched], []
    for technique in recipe.techniques:
        wanted.append(row_id(origin, recipe, technique))
        if rows_file(out, wanted[-1]).is_file():
            continue
        with progress.stage(technique) as bar:
            start = _start(subject, recipe, origin, technique, wanted[-1])
            try:
                began = time.perf_counter()
                made = findings(technique, subject, options, bar)
                start = replace(start, seconds=time.perf_counter() - began)
                rows = [result_row(start, finding) for finding in made]
            except UserError as error:
                rows = [replace(start, status="refused", message=str(error))]
        if changed := next((name for old, model in zip(before, watched, strict=True) if (name := first_change(old, model))), None):
            raise UserError(f"expected {technique} to leave the models as they are, got {changed} changed; its rows are not kept")
        write_localization(out, wanted[-1], rows)
    return [row for row in read_localization(out) if row.id in wanted]


def row_id(origin: Origin, recipe: LayersRecipe, technique: Technique) -> str:
    """Content id of one technique's rows: a hash of all that decides them."""
    what = {name: getattr(origin.identity, name) for name in ("model_id", "corpus_sha256", "device_type")}
    kept: JsonObject = {"kept": list(origin.kept)} if origin.kept and technique == "forgetting-gradients" else {}
    return content_id({**what, **kept, "layers": technique, "recipe": recipe.key(technique), "origin": origin.depends}, 16)


def planted_kind(corpus: Corpus, wanted: str | None) -> str:
    """The artifact whose rows are looked for: the wanted one, or the first with clean counterparts.

    Raises:
        UserError: the corpus has no such artifact, or its rows have no clean counterparts.
    """
    known = [kind for kind in corpus.planted if artifact_of(corpus, kind).has_clean_counterpart]
    if wanted is not None and wanted not in known:
        raise UserError(f"expected an artifact with clean counterparts ({', '.join(known) or 'the corpus has none'}), got '{wanted}'")
    if not known:
        raise UserError("expected a corpus with planted rows that have clean counterparts, got none; plant noise or a backdoor")
    return wanted or known[0]


def counterfactual_of(checkpoint: Path, recipe: Recipe, given: Path | None) -> Path:
    """Folder of the model that was trained on clean counterparts: the given one, or that beside the checkpoint's run.

    Raises:
        UserError: none is there, or the checkpoint is one itself.
    """
    if given is not None:
        return given
    other = recipe.model_copy(update={"counterfactual": True}).counterfactual_recipe()
    if recipe.is_counterfactual or other is None:
        raise UserError(f"expected a model that saw planted rows, got a counterfactual in {checkpoint}; name the model that it belongs to")
    place = run_of(checkpoint).parent / other.run_id() / "checkpoint"
    if not (place / CONFIG).is_file():
        raise UserError(
            f"expected the counterfactual of {checkpoint} in {place}, found none; train it with --set counterfactual=true, "
            "or name one with --counterfactual"
        )
    return place


def control_of(recipe: Recipe) -> tuple[int, ...]:
    """The layers that alone could learn planted rows, of a control model; none of another."""
    section = _control(recipe)
    return tuple(sorted(section.layers)) if section and len(section.layers) < recipe.model.n_layer else ()


def common_start(checkpoint: Path, recipe: Recipe) -> Path | None:
    """The last kept epoch in which planted rows had no part in the loss yet (`planted-layers: {after: ...}`); None: the untrained model."""
    section = _control(recipe)
    kept = [place for place in _kept(checkpoint) if section and (read_metadata(place).step or 0) <= section.after]
    return kept[-1] if kept else None


def _control(recipe: Recipe) -> PlantedLayersSection | None:
    return next((section for section in recipe.training.regularizers if isinstance(section, PlantedLayersSection)), None)


def _kept(checkpoint: Path) -> list[Path]:
    """Checkpoints of the run's kept epochs before the last one, in order; none of an earlier one."""
    return sorted((run_of(checkpoint) / "checkpoints").glob("epoch-*")) if checkpoint.resolve().name == "checkpoint" else []


def _checkpoints(places: list[Path], like: Checkpoint, device: str, contexts: Contexts) -> Iterator[LayeredModel]:
    """Checkpoints of earlier epochs, each loaded when it is asked for."""
    for place in places:
        yield _layers(load_checkpoint(place, device=device), place, like, contexts)


def _name_of(checkpoint: Path) -> str:
    name, place = run_name(checkpoint), checkpoint.resolve()
    return f"{name} {place.name}" if place.parent.name == "checkpoints" and name != place.name else name


def _layers(loaded: Checkpoint | None, place: Path | None, like: Checkpoint, contexts: Contexts) -> LayeredModel:
    """A model as layers, of the same configuration as another.

    Raises:
        UserError: it has another one.
    """
    assert loaded is not None
    if _configuration(loaded.model) != _configuration(like.model):
        raise UserError(f"expected a model of the same sizes and vocabulary in {place}, got another; name one of the same recipe")
    return layers_of(loaded.model, contexts)


def _configuration(model: nn.Module) -> JsonObject:
    """The class of a model and its configuration, without what says where it is from."""
    values = vars(model.config) if isinstance(model, GPT) else model.config.to_dict()  # type: ignore[operator, union-attr]
    return {"class": type(model).__name__, **{name: value for name, value in values.items() if name not in ORIGIN}}


def _start(subject: LayerSubject, recipe: LayersRecipe, origin: Origin, technique: Technique, row: str) -> LocalizationRow:
    return LocalizationRow(
        **vars(origin.identity), id=row, method=technique, artifact=origin.artifact, status="ok", versions=versions(),
        benchmark="layers", unit="layer", config=recipe.key(technique), settings=origin.settings,
        sequences=len(subject.noised),
    )  # fmt: skip


def result_row(start: LocalizationRow, found: Finding) -> LocalizationRow:
    """A finding as a result row, with the columns that all rows of its technique share."""
    return replace(
        start, score_name=found.name, score=found.score, layer=found.layer, window=found.window, low=found.low, high=found.high,
        chance=found.chance, options=found.variant,
    )  # fmt: skip
