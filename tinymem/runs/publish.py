"""What goes to the Hub of a run, a checkpoint or a corpus: repositories, a branch for each seed and step and each edit, and their files.

A branch holds what transformers needs, `tinymem.json`, a language model's sample of rows, the recipe, the curve so far, `results.json`, the
card and `manifest.json`, and nothing else of the folder.
Numbers are those stored with the weights, whose hashes are checked, or measured anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from tinymem.data.corpus_files import verify_corpus
from tinymem.data.manifest import MANIFEST as CORPUS_MANIFEST
from tinymem.data.manifest import read_manifest
from tinymem.errors import UserError, one_line
from tinymem.hub.listing import CARD, CURVE, MANIFEST, OTHERS, RECIPE, RESULTS
from tinymem.hub.names import COMMIT, REVISION, HubName, is_repository
from tinymem.hub.published import Manifest, Results
from tinymem.hub.upload import Branch, LocalFile, Plan, Repository
from tinymem.models.checkpoint import load_checkpoint
from tinymem.models.gpt2 import GPT
from tinymem.models.metadata import Metadata, read_metadata, verify_weights
from tinymem.models.weights import CONFIG, METADATA, weight_files
from tinymem.recipe.recipe import Recipe
from tinymem.runs.model_card import Described, Published, license_of, model_card
from tinymem.runs.results_of import results_of
from tinymem.runtime.files import json_lines, read_object
from tinymem.runtime.json import JsonObject
from tinymem.training.checkpoints import recipe_of, run_of, without_places

OURS = frozenset({CARD, MANIFEST, RESULTS, METADATA, RECIPE, CURVE})
"""Files of a branch that are made anew; of the others those that a checkpoint has are taken as they are."""
OF_THE_MACHINE = ("host", "traceback", "attempts")
"""Columns of result rows that say something of the machine."""


@dataclass(frozen=True)
class Choices:
    """What the user chose for a push.

    Attributes:
        license: as the Hub abbreviates it; None for that of the data.
        measure: whether the numbers are measured anew.
        corpus: the corpus of a checkpoint, or its text, for measuring.
    """

    license: str | None = None
    measure: bool = False
    corpus: Path | None = None

    def __post_init__(self) -> None:
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise UserError(f"expected --license as the Hub abbreviates it, as in mit or cc-by-4.0, got '{self.license}'")
        if self.corpus is not None and not self.corpus.exists():
            raise UserError(f"expected a corpus or its text at {self.corpus}, found none; check the path")


@dataclass(frozen=True)
class Model:
    """A checkpoint that goes to the Hub."""

    folder: Path
    metadata: Metadata
    recipe: Recipe | None
    results: Results

    @property
    def branch(self) -> str:
        """`seed0-step3500`, with the method's name behind it for an edit; `main` for a model without a recipe."""
        if self.recipe is None or self.step is None:
            return "main"
        rows = self.metadata.mitigation or []
        return self.trained_branch + (f"-{rows[0].get('method')}" if rows else "")

    @property
    def trained_branch(self) -> str:
        """`seed0-step3500`, also of an edit: the branch of the model that was trained."""
        return f"seed{self.recipe.seed}-step{self.step}" if self.recipe else "main"

    @property
    def step(self) -> int | None:
        """Steps trained; None where `tinymem.json` has none."""
        return self.metadata.step

    @property
    def is_edited(self) -> bool:
        """Whether a method changed it."""
        return self.metadata.mitigation is not None


def plan_of(place: Path, repo: str, choices: Choices) -> Plan:
    """The plan of a push of a run's folder, a checkpoint or a corpus.

    Raises:
        UserError: none of these, a bad name, or something in it that is not as it says.
    """
    check_repository(repo)
    if (place / CORPUS_MANIFEST).is_file():
        return Plan([dataset_repository(repo, {f"seed{read_manifest(place).spec.seed}": place}, choices.license)])
    if (place / CONFIG).is_file():
        return Plan([model_repository(repo, [opened(place, choices)], choices)])
    folders = sorted(path.parent for path in (place / "checkpoints").glob(f"*/{CONFIG}"))
    if not (place / "checkpoint" / CONFIG).is_file():
        raise UserError(f"expected a run, a checkpoint or a corpus at {place}, found none; `tinymem run` makes runs under runs/")
    models = [opened(folder, choices) for folder in (*folders, place / "checkpoint")]
    if not (place / "corpus" / CORPUS_MANIFEST).is_file():
        return Plan([model_repository(repo, models, choices)])
    corpus = dataset_repository(f"{repo}-corpus", {f"seed{read_manifest(place / 'corpus').spec.seed}": place / "corpus"}, choices.license)
    return Plan([corpus, model_repository(repo, models, choices, dataset=corpus.name)])


def check_repository(repo: str) -> None:
    """Raise UserError unless a text is ORG/NAME as the Hub allows it."""
    if not is_repository(repo):
        raise UserError(f"expected --repo ORG/NAME of letters, digits, '.', '_' and '-', got '{repo}'")


def opened(folder: Path, choices: Choices) -> Model:
    """A checkpoint with its numbers, once its weights have the hashes that they should, and those of step 0 are the seed's own.

    Raises:
        UserError: changed weights, no numbers and nothing to measure them with, or a step 0 that is another model.
    """
    metadata = read_metadata(folder)
    verify_weights(folder, metadata)
    model = Model(folder, metadata, recipe_of(folder, metadata), results_of(folder, metadata, choices.measure, choices.corpus))
    if model.step == 0 and not model.is_edited and model.recipe is not None:
        _check_first_step(model, model.recipe.seed)
    return model


def _check_first_step(model: Model, seed: int) -> None:
    found = load_checkpoint(model.folder).model
    first = GPT(found.config, seed=seed) if isinstance(found, GPT) else None
    if first and not all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), found.state_dict().values(), strict=True)):
        raise UserError(
            f"expected step 0 in {model.folder} to be the initialization of seed {seed}, got other weights; it is another model"
        )


def model_repository(repo: str, models: Sequence[Model], choices: Choices, dataset: str | None = None) -> Repository:
    """The repository of models of one cell: a branch for each, and `main` as the last step of the first seed.

    Raises:
        UserError: two models of one branch, or text in a file that says where it was made.
    """
    ordered = sorted(models, key=lambda model: (model.recipe.seed if model.recipe else 0, model.step or 0, model.branch))
    names = [model.branch for model in ordered]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"expected one model for each branch of {repo}, got two for {twice}; push them to two repositories")
    if wrong := next((name for name in names if not REVISION.fullmatch(name)), None):
        raise UserError(f"expected a method's name for a branch of {repo}, got '{one_line(wrong)[:60]}'; the rows of that edit are damaged")
    branches = [_branch(repo, model, names, choices, dataset) for model in ordered]
    if "main" not in names and (first := _main(ordered)) is not None:
        branches.append(Branch("main", _files(first, _published(repo, first, names, choices, dataset, "main")), is_copy=True))
    return Repository(repo, "model", branches, choices.license or license_of(ordered[0].recipe))


def _main(models: Sequence[Model]) -> Model | None:
    """The last step of the first seed; None where all are edits, which leave the default branch alone."""
    trained = [model for model in models if not model.is_edited]
    seeds = [model.recipe.seed for model in trained if model.recipe]
    return next((model for model in reversed(trained) if model.recipe and model.recipe.seed == seeds[0]), None)


def _branch(repo: str, model: Model, names: Sequence[str], choices: Choices, dataset: str | None) -> Branch:
    files = _files(model, _published(repo, model, names, choices, dataset, model.branch))
    series = f"seed{model.recipe.seed}" if model.recipe and not model.is_edited else model.branch
    return Branch(model.branch, files, series, model.step)


def _published(repo: str, model: Model, names: Sequence[str], choices: Choices, dataset: str | None, branch: str) -> Published:
    return Published(repo, branch, names, dataset, _base(repo, model), choices.license)


def _base(repo: str, model: Model) -> HubName | None:
    """The model before an edit: the one that was fetched, at its commit, or the trained one of the same repository."""
    name, _, commit = str((model.metadata.model_extra or {}).get("origin")).partition("@")
    if not model.is_edited:
        return None
    if is_repository(name) and COMMIT.fullmatch(commit):
        return HubName(name, commit)
    if model.recipe is None:
        return None
    return HubName(repo) if model.step is None else HubName(repo, model.trained_branch)


def _files(model: Model, published: Published) -> dict[str, LocalFile]:
    """Every file of a branch by name."""
    names = [path.name for path in sorted(model.folder.iterdir()) if path.name in OTHERS - OURS and path.is_file()]
    found = {name: LocalFile(model.folder / name) for name in [*names, *(path.name for path in weight_files(model.folder))]}
    found[METADATA] = _for_others(model)
    found[CONFIG] = _without_origin(model.folder / CONFIG)
    texts = {RESULTS: _json(model.results.model_dump(mode="json")), **_recipe_and_curve(model)}
    size = sum(file.size for name, file in found.items() if name.endswith(".safetensors"))
    title = published.repo.partition("/")[2]
    described = Described(title, model.recipe, model.metadata, model.results, f"{size / 2**20:.1f} MiB of weights")
    texts[CARD] = model_card(described, published)
    found |= {name: LocalFile(text.encode()) for name, text in texts.items()}
    refuse_places(found)
    manifest = Manifest(branch=published.branch, files={name: file.hashes[64] for name, file in sorted(found.items())})
    return {**found, MANIFEST: LocalFile(_json(manifest.model_dump(mode="json")).encode())}


def _json(value: JsonObject) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _for_others(model: Model) -> LocalFile:
    """`tinymem.json` without what says where it was made; the file itself where nothing does."""
    path = model.folder / METADATA
    values: JsonObject = read_object(path, "checkpoint's metadata")
    written = json.dumps(values)
    if isinstance(recipe := values.get("recipe"), dict):
        values["recipe"] = without_places(recipe)
    if isinstance(rows := values.get("mitigation"), list):
        values["mitigation"] = [{k: v for k, v in row.items() if k not in OF_THE_MACHINE} for row in rows if isinstance(row, dict)]
    return LocalFile(path if json.dumps(values) == written else _json(values).encode())


def _without_origin(path: Path) -> LocalFile:
    """A `config.json` without the folder that its model was once loaded from, which computes nothing; the name of a repository stays."""
    values: JsonObject = read_object(path, "model configuration")
    origin = str(values.pop("_name_or_path", ""))
    return LocalFile(_json(values).encode()) if re.search(r"[/\\]", origin) and not is_repository(origin) else LocalFile(path)


def _recipe_and_curve(model: Model) -> dict[str, str]:
    """The recipe without places, and the lines of the training curve up to the model's epoch."""
    texts = {}
    if model.metadata.recipe is not None:
        texts[RECIPE] = yaml.safe_dump(without_places({**model.metadata.recipe}), sort_keys=False, allow_unicode=True)
    for place in (model.folder / CURVE, run_of(model.folder) / "training" / "metrics.jsonl"):
        if place.is_file() and not model.is_edited:
            points = [point for _, point in json_lines(place, "train the model again")]
            texts[CURVE] = "".join(f"{json.dumps(p)}\n" for p in points if p.get("epoch", 0) <= (model.metadata.epoch or 0))
            break
    return texts


def dataset_repository(repo: str, corpora: Mapping[str, Path], license: str | None = None) -> Repository:
    """The repository of the corpora of one cell, by branch; `main` is the first of them.

    Raises:
        UserError: a corpus that is not as it was written.
    """
    branches = [Branch(name, _corpus_files(folder)) for name, folder in corpora.items()]
    card = branches[0].files[CARD].content.decode().split("---\n")[1]
    return Repository(
        repo, "dataset", [*branches, Branch("main", branches[0].files, is_copy=True)], license or str(yaml.safe_load(card)["license"])
    )


def _corpus_files(folder: Path) -> dict[str, LocalFile]:
    if problems := verify_corpus(folder):
        raise UserError(f"expected the corpus at {folder} as it was written, got: {problems[0]}; make it again")
    files = {path.name: LocalFile(path) for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    refuse_places(files)
    return files


def refuse_places(files: Mapping[str, LocalFile]) -> None:
    """Raise UserError where a text file names the home or working folder of this machine."""
    places = [str(place).encode() for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    for name, file in files.items():
        if name.endswith((".json", ".md", ".yaml", ".jsonl")) and name != "tokenizer.json" and any(p in file.content for p in places):
            where = f"{name}; take it out of " + ("the recipe" if name in OURS else "that file")
            raise UserError(f"expected nothing of this machine in what is published, got a path of it in {where}")
