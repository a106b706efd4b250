"""Hashes of every file of the shipped checkpoints, in `zoo/manifest.json`: what `tinymem zoo verify` checks and `zoo add` writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from tinymem.errors import UserError, check_given
from tinymem.runtime.files import file_sha256, new_directory, read_object, write_json
from tinymem.zoo.catalogue import CURVE, RECIPE, WEIGHTS, entry_of, names_in

MANIFEST = "manifest.json"
NEEDED = ("config.json", WEIGHTS, "tinymem.json", RECIPE, CURVE)


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a checkpoint folder, by name."""
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}


def read_manifest(zoo: Path) -> dict[str, dict[str, str]]:
    """The stored hashes by checkpoint and file.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    values = read_object(zoo / MANIFEST, "manifest")
    if not all(isinstance(files, dict) for files in values.values()):
        raise UserError(f"expected files with their hashes for each checkpoint in {zoo / MANIFEST}, got something else; restore it")
    return {name: {file: str(sha256) for file, sha256 in files.items()} for name, files in values.items()}


def faults(zoo: Path) -> list[str]:
    """A sentence for every file that is not as the manifest says, is missing, or is not in it."""
    stored, names = read_manifest(zoo), names_in(zoo)
    found = [f"{name}: in the manifest, but not in {zoo}" for name in stored if name not in names]
    for name in names:
        known = stored.get(name, {})
        actual = hashes_of(zoo / name)
        found += [f"{name}/{file}: {_fault(file, known, actual)}" for file in {**known, **actual} if known.get(file) != actual.get(file)]
    return found


def _fault(file: str, known: dict[str, str], actual: dict[str, str]) -> str:
    if file not in actual:
        return "missing"
    return f"expected SHA-256 {known[file][:12]}, got {actual[file][:12]}" if file in known else "not in the manifest"


def add(folder: Path, zoo: Path, corpus: Path | None = None) -> str:
    """Copy a checkpoint folder into the zoo, unless it is there already, and store its hashes; returns its name.

    Args:
        folder: with recipe and curve.
        zoo: folder of the checkpoints.
        corpus: of a language model, or its text: a sample of the rows is put beside the weights (`tinymem.data.sample`).

    Raises:
        UserError: a file that every checkpoint has is missing, another checkpoint has the name, or another corpus than it was trained on.
    """
    check_given({"corpus": corpus})
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise UserError(f"expected {', '.join(NEEDED)} in {folder}, found no {missing[0]}; add the run's recipe and curve")
    entry_of(folder)  # refuses what cannot be listed
    target = zoo / folder.resolve().name
    if target.resolve() != folder.resolve():
        if target.exists():
            raise UserError(f"expected a new name, {target} exists; rename {folder} or remove the other")
        with new_directory(target) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
            _put_sample(temporary, corpus)
    else:
        _put_sample(target, corpus)
    stored = read_manifest(zoo) if (zoo / MANIFEST).is_file() else {}
    write_json(zoo / MANIFEST, dict(sorted({**stored, target.name: hashes_of(target)}.items())))
    return target.name


def _put_sample(folder: Path, named: Path | None) -> None:
    """Write the sample of a language model's rows into its folder, and the sample's hash into its metadata."""
    from tinymem.data.sample import CLEAN_ROWS, sample_of, write_sample
    from tinymem.models.metadata import read_metadata, write_metadata
    from tinymem.models.weights import SAMPLE
    from tinymem.recipe.recipe import load_recipe
    from tinymem.training.checkpoints import corpus_of

    if named is None:
        return
    metadata, recipe = read_metadata(folder), load_recipe(folder / RECIPE)
    if recipe.data.kind == "math":
        raise UserError(f"expected a language model with --corpus, got {folder.name} of numbers; leave it out: its rows are generated anew")
    sample = sample_of(corpus_of(folder, recipe, metadata.corpus_sha256, named), CLEAN_ROWS)
    write_sample(sample, folder / SAMPLE)
    write_metadata(folder, {**metadata.as_json(), "sample_sha256": sample.sha256()})
