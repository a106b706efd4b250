"""Publish checkpoints of the zoo: a repository a cell, a branch a seed and step, the corpora of a cell, and a collection a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tinymem.data.corpus_files import save_corpus
from tinymem.errors import UserError
from tinymem.hub.upload import Collection, Plan, Repository
from tinymem.runs.publish import Choices, Model, check_repository, dataset_repository, model_repository, opened
from tinymem.training.checkpoints import corpus_of
from tinymem.zoo.catalogue import checkpoint_at
from tinymem.zoo.manifest import hashes_of, read_manifest

TABLES = {"TinyMem: Table 1": "math-mult-*-4l"}
"""The cells that a table is measured on, by the title of its collection."""
REST = "TinyMem: zoo"
SEED = re.compile(r"-s(\d+)$")


def plan_of_zoo(names: Sequence[str], zoo: Path, org: str, work: Path, choices: Choices) -> Plan:
    """The plan of a push of shipped checkpoints.

    Args:
        names: of the checkpoints.
        zoo: their folder.
        org: organization or user on the Hub.
        work: a folder for corpora, which are generated anew; those of text are published only if the user names their corpus.
        choices: of the user.

    Raises:
        UserError: an unknown name, or a file that is not as the zoo's manifest says.
    """
    cells: dict[str, list[Path]] = {}
    known = read_manifest(zoo)
    for name in dict.fromkeys(names):
        folder = checkpoint_at(name, zoo)
        if known.get(name) != hashes_of(folder):
            raise UserError(f"expected {folder} as the zoo's manifest says, got other files; `tinymem zoo verify` lists them")
        cells.setdefault(SEED.sub("", name), []).append(folder)
    repositories = [r for cell, folders in cells.items() for r in _of_cell(f"{org}/tinymem-{cell}", folders, work, choices)]
    return Plan(repositories, list(_collections(org, repositories)))


def _of_cell(repo: str, folders: Sequence[Path], work: Path, choices: Choices) -> Iterator[Repository]:
    check_repository(repo)
    models = [opened(folder, choices) for folder in folders]
    corpora = dict(_corpora(models, work, choices))
    if corpora:
        yield dataset_repository(f"{repo}-corpus", corpora, choices.license)
    yield model_repository(repo, models, choices, dataset=f"{repo}-corpus" if corpora else None)


def _corpora(models: Sequence[Model], work: Path, choices: Choices) -> Iterator[tuple[str, Path]]:
    """The corpus of each model by its branch; each is checked against the hash that the checkpoint has of it."""
    for model in models:
        assert model.recipe is not None  # the catalogue lists no others
        if model.recipe.data.kind == "math" or choices.corpus is not None:
            place = work / model.folder.name
            save_corpus(corpus_of(model.folder, model.recipe, model.metadata.corpus_sha256, choices.corpus), place)
            yield f"seed{model.recipe.seed}", place


def _collections(org: str, repositories: Sequence[Repository]) -> Iterator[Collection]:
    by_title: Mapping[str, list[Repository]] = {title: [] for title in (*TABLES, REST)}
    for repository in repositories:
        cell = repository.name.partition("/tinymem-")[2].removesuffix("-corpus")
        by_title[next((title for title, pattern in TABLES.items() if fnmatch(cell, pattern)), REST)].append(repository)
    yield from (Collection(title, org, items) for title, items in by_title.items() if items)
