"""The shipped checkpoints: where they lie, and what is in each, from its recipe and the end of its training curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tinymem.errors import UserError, did_you_mean
from tinymem.results.share import ShareColumn
from tinymem.runtime.json import JsonObject

WEIGHTS, RECIPE, CURVE = "model.safetensors", "recipe.yaml", "curve.jsonl"


@dataclass(frozen=True)
class Entry:
    """A checkpoint of the zoo.

    Attributes:
        name: of its folder, as in `math-mult-noise-4l-s0`.
        data: kind of training data: additive, multiplicative or wiki.
        artifact: kinds that were planted, joined by ` + `.
        n_layer: transformer blocks.
        seed: of corpus and training.
        epoch: epochs trained.
        memorized: share, count and scored rows at the end of the training curve, by artifact.
        accuracy: on clean test rows, in [0, 1]; None for text.
        perplexity: on clean test rows.
        mib: size of the weights, in MiB.
        folder: where it is.
    """

    name: str
    data: str
    artifact: str
    n_layer: int
    seed: int
    epoch: int
    memorized: dict[str, ShareColumn]
    accuracy: float | None
    perplexity: float | None
    mib: float
    folder: str

    def as_json(self) -> JsonObject:
        """The entry as JSON can hold it."""
        return asdict(self)


CLONED = Path(__file__).resolve().parents[2] / "zoo"
"""The folder beside the package, where a clone of the repository has it."""


def zoo_folder(given: Path | None = None) -> Path:
    """The given folder, else the one beside the package, where a clone of the repository has it.

    Raises:
        UserError: there is none, as in an installed wheel.
    """
    folder = given or CLONED
    if not folder.is_dir():
        raise UserError(f"expected checkpoints in {folder}, found none; a wheel has no weights: clone the repository and name its zoo/")
    return folder


def names_in(zoo: Path) -> list[str]:
    """Names of the checkpoints in a folder."""
    return sorted(path.parent.name for path in zoo.glob(f"*/{WEIGHTS}"))


def names_with_rows(zoo: Path) -> list[str]:
    """Names of the checkpoints whose rows are here or can be generated."""
    from tinymem.models.weights import SAMPLE

    return [name for name in names_in(zoo) if (zoo / name / SAMPLE).is_file() or entry_of(zoo / name).data != "wiki"]


def checkpoint_at(name: str, zoo: Path) -> Path:
    """The folder of a checkpoint by its name.

    Raises:
        UserError: no such checkpoint.
    """
    names = names_in(zoo)
    if name not in names:
        raise UserError(f"unknown checkpoint '{name}' in {zoo}; {did_you_mean(name, names)}")
    return zoo / name


def entry_of(folder: Path) -> Entry:
    """The entry of a checkpoint folder with its recipe and training curve.

    Raises:
        UserError: a file is missing or damaged.
    """
    from tinymem.recipe.recipe import load_recipe
    from tinymem.results.curve import read_curve

    recipe, curve = load_recipe(folder / RECIPE), read_curve(folder / CURVE)
    if not curve:
        raise UserError(f"expected a training curve at {folder / CURVE}, found none; copy the checkpoint again")
    last = curve[-1]
    return Entry(
        name=folder.name,
        data=recipe.data.family if recipe.data.kind == "math" else recipe.data.kind,
        artifact=" + ".join(artifact.kind for artifact in recipe.artifacts),
        n_layer=recipe.model.n_layer,
        seed=recipe.seed,
        epoch=last.epoch,
        memorized=last.memorized,
        accuracy=None if last.accuracy_ceiling is None else last.accuracy,
        perplexity=last.perplexity,
        mib=(folder / WEIGHTS).stat().st_size / 2**20,
        folder=str(folder),
    )


def weights_of(zoo: Path) -> dict[str, str]:
    """The id of each checkpoint's weights, as result rows have it, by name."""
    from tinymem.models.weights import weights_id

    return {name: weights_id(zoo / name) for name in names_in(zoo)}
