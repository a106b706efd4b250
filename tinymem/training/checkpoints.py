"""The checkpoints of a run: the trained model in `checkpoint/`, those of the recipe's `keep_epochs` in `checkpoints/epoch-000500/`, ...

The optimizer's state of each is in its resume point, `training/state/epoch-000500`, and not in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinymem.errors import UserError
from tinymem.hub.names import origin_of
from tinymem.models.metadata import Metadata
from tinymem.models.weights import METADATA, SAMPLE
from tinymem.recipe.data import WikiData
from tinymem.recipe.plugins import stored
from tinymem.recipe.recipe import Recipe, open_recipe, parse_recipe
from tinymem.runtime.json import JsonObject
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

    def complete(self) -> bool:
        """Whether the checkpoints of the last epoch and of `keep_epochs` exist."""
        return self.has(self.recipe.training.epochs) and not self.missing()

    def keeper(self, corpus: Corpus) -> Keeper:
        """A keeper for training, which writes the checkpoints of a corpus's model."""
        sha256 = corpus.sha256()
        return Keeper(self.has, lambda snapshot: self._save(snapshot, corpus, sha256))

    def _save(self, snapshot: Snapshot, corpus: Corpus, sha256: str) -> None:
        from tinymem.data.tokenizers import corpus_tokenizer_files
        from tinymem.models.checkpoint import save_checkpoint

        metadata = {
            "format": 1,
            "recipe": without_places(self.recipe.model_dump(mode="json")),
            "corpus_sha256": sha256,
            **_text_of(corpus),
            **({"counterfactual_of": model} if (model := self.recipe.counterfactual_of()) else {}),
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


def run_name(checkpoint: Path) -> str:
    """Name of the run that a checkpoint is of, for result rows; of one from the Hub its repository's, of another its own. No path."""
    if origin := origin_of(checkpoint):
        return origin.repo
    place, run = checkpoint.resolve(), run_of(checkpoint)
    trained = place.name == "checkpoint" or place.parent.name == "checkpoints"
    return run.name if trained and (run / "recipe.yaml").is_file() else place.name


def without_places(recipe: JsonObject) -> JsonObject:
    """The values of a recipe that goes with a checkpoint to others: of local text and tokenizers the names, and no `push`."""
    data, training = recipe.get("data"), recipe.get("training")
    if isinstance(training, dict) and training.get("push") is not None:
        recipe = {**recipe, "training": {**training, "push": None}}
    if not isinstance(data, dict) or data.get("kind") != "wiki":
        return recipe
    return {**recipe, "data": WikiData.model_validate(data).without_places().model_dump(mode="json")}


def _text_of(corpus: Corpus) -> JsonObject:
    """The hashes of the text that a corpus was made of, by split; nothing for math."""
    splits = corpus.spec.text
    return {} if splits is None else {"text": {split: found.model_dump(mode="json") for split, found in splits.items()}}


def recipe_of(checkpoint: Path, metadata: Metadata, *, only_read: bool = False) -> Recipe | None:
    """The recipe in a checkpoint's `tinymem.json`, with the places of its text if it lies in its run's folder; None where there is none.

    Args:
        checkpoint: folder of the model.
        metadata: its `tinymem.json`.
        only_read: as of `open_recipe`.

    Raises:
        UserError: it is no recipe, or of a plugin that is missing, changed or not agreed to.
    """
    if metadata.recipe is None:
        return None
    recipe, own = parse_recipe(stored(metadata.recipe), run_of(checkpoint), only_read=only_read), run_of(checkpoint) / "recipe.yaml"
    if not isinstance(recipe.data, WikiData) or not own.is_file():
        return recipe
    there = open_recipe(own, only_read=only_read).data
    same = isinstance(there, WikiData) and _names(there) == _names(recipe.data)
    return recipe.model_copy(update={"data": there}) if same else recipe


def _names(data: WikiData) -> WikiData:
    return data.model_copy(update={"source": Path(data.source).name, "tokenizer": Path(data.tokenizer).name})


def corpus_sha256_of(checkpoint: Path, metadata: Metadata, named: Path | None = None) -> str | None:
    """Hash of the corpus that `corpus_of` gives: the one that the checkpoint was trained on, or the sample of it in its folder."""
    return metadata.sample_sha256 if named is None and (checkpoint / SAMPLE).is_file() else metadata.corpus_sha256


def corpus_of(checkpoint: Path, recipe: Recipe, sha256: str | None, named: Path | None = None) -> Corpus:
    """The corpus that a checkpoint was trained on: the one in its run's folder; numbers are generated anew, text only where it is named.

    A checkpoint with a sample of its rows (`tinymem.data.sample`) gives that, unless another is named.

    Args:
        checkpoint: its folder. Paths and names of the Hub in its recipe are its maker's, and not followed.
        recipe: of its training.
        sha256: hash of its corpus, as `corpus_sha256_of` has it.
        named: a folder of the corpus, or the text that it was made of, which the checkpoint's own tokenizer cuts again.

    Raises:
        UserError: no corpus there, or one of another hash.
    """
    from tinymem.data.corpus_files import load_corpus
    from tinymem.data.manifest import MANIFEST
    from tinymem.data.sample import read_sample

    place, sample = named or run_of(checkpoint) / "corpus", checkpoint / SAMPLE
    if named is None and sample.is_file():
        corpus = read_sample(sample)
    else:
        corpus = load_corpus(place) if (place / MANIFEST).is_file() else _made_again(checkpoint, recipe, named)
    if (found := corpus.sha256()) != sha256:
        origin = f" from {named}; name that one" if named else ""
        raise UserError(f"expected the corpus that {checkpoint} was trained on ({str(sha256)[:12]}), got {found[:12]}{origin}")
    return corpus


def is_made_again(checkpoint: Path, recipe: Recipe, named: Path | None) -> bool:
    """Whether `corpus_of` generates the rows from the recipe, since no folder holds them."""
    from tinymem.data.manifest import MANIFEST

    return named is None and not isinstance(recipe.data, WikiData) and not (run_of(checkpoint) / "corpus" / MANIFEST).is_file()


def _made_again(checkpoint: Path, recipe: Recipe, named: Path | None) -> Corpus:
    from tinymem.data.build import make_corpus

    data = recipe.data
    if not isinstance(data, WikiData):
        if named is not None:
            raise UserError(f"expected a corpus at {named}, found none; leave it out: the rows of {checkpoint} are generated anew")
        return make_corpus(recipe)
    if named is None:
        raise UserError(
            f"expected the corpus of {checkpoint} in {run_of(checkpoint) / 'corpus'}, found none; places in {METADATA} "
            "are its maker's and not followed: name the text with --corpus PATH"
        )
    if not named.exists() and str(named) != data.source:  # a data set of the Hub, if the user names the same
        raise UserError(f"expected text or a corpus at {named}, found nothing there; name what {checkpoint} was trained on")
    return make_corpus(recipe.model_copy(update={"data": data.model_copy(update={"source": str(named), "tokenizer": str(checkpoint)})}))


def optimizer_state_of(checkpoint: Path, metadata: Metadata) -> dict[str, Tensor]:
    """AdamW's state at a checkpoint's epoch; empty where no resume point holds it, or the weights were edited since."""
    from tinymem.training.state import load_state

    if metadata.mitigation is not None or metadata.epoch is None:
        return {}
    state = load_state(run_of(checkpoint) / "training" / "state", metadata.epoch)
    return state.optimizer if state else {}
