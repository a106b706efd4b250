"""The manifest of a corpus on disk, `corpus.json`: the specification of its rows, their format, and a hash of every file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinymem.errors import UserError
from tinymem.recipe.corpus_spec import CorpusSpec
from tinymem.runtime.files import read_object
from tinymem.runtime.json import JsonObject

MANIFEST = "corpus.json"
FORMAT = 2


class CorpusManifest(BaseModel):
    """The content of a `corpus.json`; any other keys in it are the notes of artifacts (`Claim.notes`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: int = FORMAT
    spec: CorpusSpec
    vocab_size: int
    pad: int
    bos: int
    eos: int
    artifacts: tuple[str, ...]
    """Kinds of artifacts, in the order of their tables."""
    counts: dict[str, int]
    clean_dtype: str | None = None
    """Text: NumPy's name of the type of `train.ids`."""
    row_tokens: int | None = None
    """Text: length of a row in tokens."""
    license: str | None = None
    """Text: its license, as the user states it."""
    credit: str | None = None
    """Text: whose it is and where it is from, as the user states it."""
    sha256: str
    """Hash of the rows; see `Corpus.sha256`."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file, by file name."""

    @property
    def notes(self) -> JsonObject:
        """Notes of the artifacts, such as a trigger's token ids."""
        return {name: value for name, value in (self.model_extra or {}).items() if name != "text"}

    def as_json(self) -> JsonObject:
        """The manifest as a JSON object, in its form on disk."""
        own = self.model_dump(mode="json", include=set(type(self).model_fields), exclude_none=True)
        last = {name: own.pop(name) for name in ("sha256", "files")}
        own["spec"] = self.spec.as_json()
        text: JsonObject = {"text": own["spec"]["text"]} if self.spec.text is not None else {}
        return {**own, **text, **self.notes, **last}


def read_manifest(directory: Path) -> CorpusManifest:
    """The manifest of a corpus.

    Raises:
        UserError: the file is missing, or TinyMem did not write it.
    """
    values = read_object(directory / MANIFEST, "corpus manifest")
    try:
        return CorpusManifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"expected a corpus manifest in {directory / MANIFEST}, got something else ({place}: {first['msg']}); make the corpus again"
        ) from None
