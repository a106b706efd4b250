"""What a published branch says of itself besides `tinymem.json`: the numbers of its card, and the hash of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinymem.errors import UserError
from tinymem.hub.listing import CARD, RESULTS
from tinymem.models.metadata import Sha256
from tinymem.models.weights import weight_files
from tinymem.runtime.files import file_sha256, read_json
from tinymem.runtime.json import JsonObject

Count = Annotated[int, Field(ge=0, le=2**53)]
M = TypeVar("M", bound=BaseModel)


class _Published(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Counted(_Published):
    """Memorized rows of an artifact, of all that are scored."""

    count: Count
    rows: Count

    @property
    def share(self) -> float:
        """In [0, 1]; 0 of no rows."""
        return self.count / self.rows if self.rows else 0.0


class Results(_Published):
    """The measured numbers of one revision.

    Attributes:
        weights_sha256: of the weights that were measured, by file.
        corpus_sha256: of the corpus whose rows were scored.
        measured: where the numbers come from, in words.
        memorized: counts by artifact.
        accuracy: on clean test rows, in [0, 1]; None for text.
        perplexity: on clean test rows.
    """

    weights_sha256: dict[str, Sha256]
    corpus_sha256: Sha256 | None = None
    measured: str
    memorized: dict[str, Counted]
    accuracy: float | None = None
    perplexity: float | None = None

    @property
    def of_own_rows(self) -> bool:
        """Whether they are of rows from files, and not of a corpus in which rows were planted."""
        return [*self.memorized] == ["rows"]

    def scored(self, kind: str) -> str:
        """What the memorized rows of an artifact are called."""
        return "rows to forget" if self.of_own_rows else f"{kind} rows"

    @property
    def test_rows(self) -> str:
        """What the rows of the perplexity are called."""
        return "rows to keep that no method was given" if self.of_own_rows else "clean test rows"

    def metrics(self) -> list[JsonObject]:
        """The numbers as entries of a card's `model-index`, each with the rows behind it."""
        found: list[JsonObject] = [
            {
                "type": "memorized",
                "name": f"Memorized {self.scored(kind)}, % ({counted.count:,} of {counted.rows:,})",
                "value": round(100 * counted.share, 4),
                "args": {"artifact": kind, "count": counted.count, "rows": counted.rows},
            }
            for kind, counted in self.memorized.items()
        ]
        if self.accuracy is not None:
            found.append({"type": "accuracy", "name": "Accuracy on clean test rows, %", "value": round(100 * self.accuracy, 4)})
        if self.perplexity is not None:
            found.append({"type": "perplexity", "name": f"Perplexity on {self.test_rows}", "value": round(self.perplexity, 6)})
        return found


class Manifest(_Published):
    """The hash of every other file of a revision."""

    format: int = 1
    branch: str
    files: dict[str, Sha256]


def read_published(folder: Path, name: str, kind: type[M]) -> M:
    """A file of a published folder as its type.

    Raises:
        UserError: it has other keys or types.
    """
    try:
        return kind.model_validate(read_json(folder / name))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))[:60]
        raise UserError(f"expected {name} in {folder} as TinyMem writes it, got '{place}': {first['msg'][:80]}; it is damaged") from None


def card_text(folder: Path) -> str:
    """The card of a folder, empty where there is none."""
    path = folder / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def has_results(folder: Path) -> bool:
    """Whether TinyMem published the folder with its numbers."""
    return (folder / RESULTS).is_file()


def hashes_of_weights(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights."""
    return {path.name: file_sha256(path) for path in weight_files(folder)}
