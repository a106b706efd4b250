"""`tinymem.json`: what a checkpoint says of itself. It may come from a stranger, so it is read as data of known types and sizes.

Keys that are not known here are kept, and written again with an edited model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from tinymem.errors import UserError
from tinymem.models.weights import METADATA, weight_files
from tinymem.runtime.files import file_sha256, write_json
from tinymem.runtime.json import Json, JsonObject

FORMAT = 1
MAXIMUM_BYTES = 64 * 2**20  # with the rows of an edit some 100 KB

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WeightsFile = Annotated[str, Field(pattern=r"^[^/\\]+\.safetensors$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Data(BaseModel):
    """Base of typed JSON whose further keys are kept; no text or truth value passes for a number, and no number is infinite."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue]


class LastMeasurement(_Data):
    """The curve's last line."""

    epoch: Count | None = None


class TextHash(_Data):
    """The text of one split that a corpus was made of."""

    lines: Count
    tokens: Count
    sha256: Sha256


class Metadata(_Data):
    """The content of `tinymem.json`; empty for a folder that TinyMem did not write.

    Attributes:
        format: of the file; raised when older versions cannot read it any more.
        recipe: the run's recipe as written, unchecked; see `training.checkpoints.recipe_of`.
        corpus_sha256: hash of the corpus that the model was trained on.
        sample_sha256: hash of the sample of that corpus that is in the folder, where its text is not (`tinymem.data.sample`).
        text: what that corpus was made of, by split; its name is the recipe's `data.source`. None for math.
        epoch: epochs trained.
        step: steps trained.
        threads: numbers of threads that trained it.
        metrics: the curve's last line.
        counterfactual_of: `model_id` of the model whose counterfactual it is: trained on clean counterparts in the places of planted rows.
        edited_from: `model_id` of the model before an edit.
        mitigation: result rows of the edit.
        weights_sha256: hash of each file of weights, by its name.
    """

    format: int = Field(FORMAT, ge=1)
    recipe: dict[str, JsonValue] | None = None
    corpus_sha256: Sha256 | None = None
    sample_sha256: Sha256 | None = None
    text: dict[str, TextHash] | None = None
    epoch: Count | None = None
    step: Count | None = None
    threads: list[Count] | None = None
    metrics: LastMeasurement | None = None
    counterfactual_of: str | None = None
    edited_from: str | None = None
    mitigation: list[dict[str, JsonValue]] | None = None
    weights_sha256: dict[WeightsFile, Sha256] = Field(default_factory=dict)

    def as_json(self) -> JsonObject:
        """The file's content, without keys that it lacks."""
        values: JsonObject = self.model_dump(mode="json", exclude_unset=True)
        return values


def read_metadata(folder: Path) -> Metadata:
    """The `tinymem.json` of a checkpoint folder; empty where there is none.

    Raises:
        UserError: the file is too large, no JSON object, of a newer format, or a key has a value of another type or range.
    """
    path = folder / METADATA
    if not path.is_file():
        return Metadata()
    values = _read(path)
    if isinstance(written := values.get("format"), int) and written > FORMAT:
        raise UserError(f"expected {path} in format {FORMAT} or older, got {_short(written)}; a newer TinyMem wrote it: update this one")
    try:
        return Metadata.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, message = _short(".".join(map(str, first["loc"]))), first["msg"]
        raise UserError(
            f"'{place}' in {path}: {message[0].lower()}{message[1:]}, got {_short(first['input'])}; the file is damaged, or not TinyMem's"
        ) from None


def _read(path: Path) -> JsonObject:
    try:
        if (size := path.stat().st_size) > MAXIMUM_BYTES:
            raise UserError(f"expected at most {MAXIMUM_BYTES:,} bytes in {path}, got {size:,}; the file is damaged or not TinyMem's")
        values = from_json(path.read_bytes(), allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"expected JSON in {path}, got something else ({error}); the file is damaged: copy the checkpoint again") from None
    except OSError as error:
        raise UserError(f"expected a readable file at {path}, got: {error.strerror or error}; check the path and its rights") from None
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object in {path}, got {type(values).__name__}; the file is damaged: copy the checkpoint again")
    return values


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def write_metadata(folder: Path, metadata: Mapping[str, Json]) -> None:
    """Write `tinymem.json` into a folder that has its weights, with the hashes of those."""
    hashes: JsonObject = {path.name: file_sha256(path) for path in weight_files(folder)}
    write_json(folder / METADATA, {"format": FORMAT, **metadata, "weights_sha256": hashes})


def verify_weights(folder: Path, metadata: Metadata, known: Mapping[str, str] = MappingProxyType({})) -> Mapping[str, str]:
    """Compare the weights in a folder, byte for byte, with those that its `tinymem.json` has the hashes of.

    Args:
        folder: the checkpoint folder.
        metadata: its `tinymem.json`.
        known: SHA-256 of files, by their names, that need not be read again.

    Returns:
        The SHA-256 of the files that were compared, by their names, for `weights_id`.

    Raises:
        UserError: a file is changed or missing.
    """
    for name, sha256 in metadata.weights_sha256.items():
        path = folder / name
        if not path.is_file() or (known.get(name) or file_sha256(path)) != sha256:
            found = "changed" if path.is_file() else "missing"
            raise UserError(
                f"expected {path} as it was saved (SHA-256 {sha256[:12]}), found it {found}; copy the checkpoint again, "
                "or give --no-verify, where a command has it, if you changed it yourself"
            )
    return metadata.weights_sha256
