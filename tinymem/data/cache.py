"""One corpus for all runs with the same rows: made once, then hard-linked.

`<runs>/.corpus-<id>` names the run that has it. It is made under a lock of that id in `<runs>/.corpora.lock`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tinymem.data.corpus import Corpus
from tinymem.data.corpus_files import is_stated, load_corpus
from tinymem.data.manifest import MANIFEST
from tinymem.recipe.recipe import Recipe
from tinymem.runtime.files import content_id, new_directory, write_text
from tinymem.runtime.locks import locked

Make = Callable[[], Corpus]
Usable = Callable[[Path], bool]
LOCK = ".corpora.lock"


def shared_corpus(recipe: Recipe, directory: Path, make: Make, usable: Usable = lambda _: True) -> Corpus:
    """The corpus in `directory`, a run's corpus folder: linked to that of another run of the same parent folder, or made.

    Args:
        recipe: its corpus key decides which runs share a corpus.
        directory: folder of the corpus.
        make: makes the corpus there.
        usable: tells whether another run's corpus is still valid for the recipe.
    """
    runs, key = directory.parent.parent, content_id(recipe.corpus_key(), 16)
    owner = runs / f".corpus-{key}"
    with locked(runs / LOCK, key, wait=True):
        try:
            other = runs / (owner.read_text(encoding="utf-8") if owner.is_file() else ".none") / "corpus"
            if (other / MANIFEST).is_file() and other != directory and usable(other) and is_stated(recipe.data, other):
                _link(other, directory)
                return load_corpus(directory)
            corpus = make()
            write_text(owner, directory.parent.name)
            return corpus
        except BaseException:
            owner.unlink(missing_ok=True)
            raise


def _link(source: Path, target: Path) -> None:
    with new_directory(target) as temporary:
        for path in sorted(source.rglob("*")):
            to = temporary / path.relative_to(source)
            if path.is_dir():
                to.mkdir()
                continue
            try:
                os.link(path, to)
            except OSError:  # a filesystem without hard links
                shutil.copyfile(path, to)
