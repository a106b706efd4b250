"""The checkpoints of a run: the trained model in `checkpoint/`, those of the recipe's kept epochs in `checkpoints/epoch-000500/`, ...

The optimiser's state of each is its resume point, `training/state/epoch-000500`; it is no part of the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.recipe import Recipe
from tinymem.training.snapshot import Keeper, Snapshot

if TYPE_CHECKING:
    from tinymem.data.corpus import Corpus


@dataclass(frozen=True)
class RunCheckpoints:
    """Where the checkpoints of a run's folder are."""

    run: Path
    recipe: Recipe

    def folder(self, epoch: int) -> Path:
        """Of the model after an epoch."""
        return self.run / "checkpoint" if epoch == self.recipe.training.epochs else self.run / "checkpoints" / f"epoch-{epoch:06d}"

    def has(self, epoch: int) -> bool:
        """Whether it is there."""
        return (self.folder(epoch) / "tinymem.json").is_file()

    def missing(self) -> list[int]:
        """Kept epochs, the last apart, that have none."""
        settings = self.recipe.training
        return [epoch for epoch in settings.keep_epochs if epoch < settings.epochs and not self.has(epoch)]

    def keeper(self, corpus: Corpus) -> Keeper:
        """For training: writes the checkpoints of a corpus's model."""
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
            "metrics": snapshot.metrics,
            "training_seconds": snapshot.seconds,
            **snapshot.facts,
        }
        save_checkpoint(snapshot.model, self.folder(snapshot.epoch), metadata=metadata, tokenizer_files=corpus_tokenizer_files(corpus))


def run_of(checkpoint: Path) -> Path:
    """The run's folder that a checkpoint lies in."""
    above = checkpoint.resolve().parent
    return above.parent if above.name == "checkpoints" else above
