"""Take a published checkpoint into the zoo, under the zoo's own name."""

from __future__ import annotations

import shutil
from pathlib import Path

from tinymem.errors import UserError
from tinymem.hub.listing import is_taken
from tinymem.hub.pins import Snapshot
from tinymem.models.metadata import read_metadata
from tinymem.recipe.recipe import dump_recipe
from tinymem.runtime.files import new_directory, write_text
from tinymem.training.checkpoints import recipe_of
from tinymem.zoo.catalogue import CURVE, RECIPE
from tinymem.zoo.manifest import add

PUBLISHED_ONLY = ("README.md", "manifest.json", "results.json")


def pull(snapshot: Snapshot, zoo: Path) -> str:
    """Copy a fetched checkpoint into a zoo and store the hashes of its files; returns its name, such as `math-mult-noise-4l-s0`.

    Raises:
        UserError: not a trained checkpoint that TinyMem published, or another of that name is there.
    """
    metadata = read_metadata(snapshot.folder)
    recipe = recipe_of(snapshot.folder, metadata)
    if recipe is None or not (snapshot.folder / CURVE).is_file():
        raise UserError(
            f"expected a trained model that TinyMem published in {snapshot.name}, got none; evaluate and mitigate take any model"
        )
    cell = snapshot.name.repo.partition("/")[2].removeprefix("tinymem-")
    target = zoo / f"{cell}-s{recipe.seed}"
    if target.exists():
        raise UserError(f"expected a new name, {target} exists; remove it, or give another folder with --zoo")
    with new_directory(target) as temporary:
        for path in snapshot.folder.iterdir():
            if path.name not in PUBLISHED_ONLY and is_taken(path.name):  # the cache may hold more, which other programs fetched
                shutil.copyfile(path, temporary / path.name)  # follows the cache's links, which were checked
        write_text(temporary / RECIPE, dump_recipe(recipe))
    return add(target, zoo)
