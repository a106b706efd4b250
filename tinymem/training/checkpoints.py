"""The checkpoints of a run: the trained model in `checkpoint/`, those of the recipe's `keep_epochs` in `checkpoints/epoch-000500/`, ...

The optimizer's state of each is in its resume point, `training/state/epoch-000500`, and not in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.models.metadata import Metadata
from tinymem.models.weights import METADATA
from tinymem.recipe.plugins import stored
from tinymem.recipe.recipe import Recipe, parse_recipe
from tinymem.training.snapshot import Keeper, Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from tinymem.data.corpus import Corpus


@dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoint folders of a run, one for each epoch that the recipe keeps."""

    run: Path
    recipe: Recipe

    def folder(self, epoch: int) -> Path:
        """Checkpoint folder of the model after an epoch."""
        return self.run / "checkpoint" if epoch == self.recipe.training.epochs else self.run / "checkpoints" / f"epoch-{epoch:06d}"

    def has(self, epoch: int) -> bool:
        """Whether the checkpoint of an epoch exists."""
        return (self.folder(epoch) / METADATA).is_file()

    def missing(self) -> list[int]:
        """Epochs of `keep_epochs`, other than the last one, without a checkpoint."""
        settings = self.recipe.training
        return [epoch for epoch in settings.keep_epochs if epoch < settings.epochs and not self.has(epoch)]

    def keeper(self, corpus: Corpus) -> Keeper:
        """A keeper for training, which writes the checkpoints of a corpus's model."""
        sha256 = corpus.sha256()
        return Keeper(self.has, lambda snapshot: self._save(snapshot, corpus, sha256))

    def _save(self, snapshot: Snapshot, corpus: Corpus, sha256: str) -> None:
        from tinymem.data.tokenizers import corpus_tokenizer_files
        from tinymem.models.checkpoint import save_checkpoint

        metadata = {
            "format": 1,
            "recipe": self.recipe.model_dump(mode="json"),
            "corpus_sha256": sha256,
            "epoch": snapshot.epoch,
            "step": snapshot.step,
            "metrics": snapshot.metrics.as_dict(),
            "training_seconds": snapshot.seconds,
            **vars(snapshot.facts),
        }
        save_checkpoint(snapshot.model, self.folder(snapshot.epoch), metadata=metadata, tokenizer_files=corpus_tokenizer_files(corpus))


def run_of(checkpoint: Path) -> Path:
    """The run's folder that contains a checkpoint: `<run>/checkpoint` or `<run>/checkpoints/epoch-000500`."""
    above = checkpoint.resolve().parent
    return above.parent if above.name == "checkpoints" else above


def recipe_of(checkpoint: Path, metadata: Metadata) -> Recipe | None:
    """The recipe in a checkpoint's `tinymem.json`; None where there is none.

    Raises:
        UserError: it is no recipe, or of a plugin that is missing, changed or not agreed to.
    """
    return parse_recipe(stored(metadata.recipe), run_of(checkpoint)) if metadata.recipe is not None else None


def corpus_of(checkpoint: Path, recipe: Recipe, sha256: str | None) -> Corpus:
    """The corpus that a checkpoint was trained on: the one in its run's folder, or generated anew from the recipe.

    Raises:
        UserError: the corpus's hash differs from `sha256`.
    """
    from tinymem.data.build import make_corpus
    from tinymem.data.corpus_files import load_corpus
    from tinymem.data.manifest import MANIFEST

    folder = run_of(checkpoint) / "corpus"
    corpus = load_corpus(folder) if (folder / MANIFEST).is_file() else make_corpus(recipe)
    if corpus.sha256() != sha256:
        raise UserError(f"expected the corpus that {checkpoint} was trained on ({str(sha256)[:12]}), got {corpus.sha256()[:12]}")
    return corpus


def optimizer_state_of(checkpoint: Path, metadata: Metadata) -> dict[str, Tensor]:
    """AdamW's state at a checkpoint's epoch; empty where no resume point holds it, or the weights were edited since."""
    from tinymem.training.state import load_state

    if metadata.mitigation is not None or metadata.epoch is None:
        return {}
    state = load_state(run_of(checkpoint) / "training" / "state", metadata.epoch)
    return state.optimizer if state else {}
