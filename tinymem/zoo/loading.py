"""A shipped checkpoint with its data, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.zoo.catalogue import checkpoint_at, zoo_folder

if TYPE_CHECKING:
    from torch import nn

    from tinymem.data.corpus import Corpus
    from tinymem.data.planted import Planted
    from tinymem.mitigation.subject import Subject
    from tinymem.recipe.recipe import Recipe


@dataclass(frozen=True)
class Loaded:
    """A checkpoint of the zoo, with the corpus that it was trained on, or the shipped sample of it.

    Attributes:
        name: of the checkpoint.
        model: on the device that was asked for.
        corpus: generated anew, or read, and checked against the hash that the checkpoint has of it.
        recipe: of its training.
    """

    name: str
    model: nn.Module
    corpus: Corpus
    recipe: Recipe

    @property
    def planted(self) -> dict[str, Planted]:
        """The planted rows with their clean counterparts, by artifact."""
        return dict(self.corpus.planted)

    def subject(self) -> Subject:
        """The model measured, with its forget and holdout rows, for `tinymem.mitigate`."""
        from tinymem.mitigation.subject import subject_of_corpus

        return subject_of_corpus(self.model, self.corpus, self.recipe)


def load(name: str, *, device: str = "cpu", zoo: Path | str | None = None, corpus: Path | str | None = None) -> Loaded:
    """Load a shipped checkpoint and its corpus.

    Args:
        name: as `tinymem zoo list` has it.
        device: where the model goes.
        zoo: folder of the checkpoints; default: the one of the repository.
        corpus: folder of the corpus of a language model, or its text; default: the sample of its rows that is shipped, with all planted
            and test rows and some of the clean ones. Math corpora are generated anew.

    Raises:
        UserError: an unknown name, no such folder, or another corpus than the model was trained on.
    """
    from tinymem.models.checkpoint import load_checkpoint
    from tinymem.models.weights import SAMPLE
    from tinymem.recipe.recipe import load_recipe
    from tinymem.training.checkpoints import corpus_of, corpus_sha256_of

    folder = checkpoint_at(name, zoo_folder(Path(zoo) if zoo is not None else None))
    recipe, loaded = load_recipe(folder / "recipe.yaml"), load_checkpoint(folder, device=device)
    named = Path(corpus) if corpus is not None else None
    if named is None and recipe.data.kind != "math" and not (folder / SAMPLE).is_file():
        raise UserError(f"expected the corpus of {name}, whose text is not shipped; name its folder with corpus=PATH")
    rows = corpus_of(folder, recipe, corpus_sha256_of(folder, loaded.metadata, named), named)
    return Loaded(name, loaded.model, rows, recipe)
