"""What models say: greedy continuations beside what should follow, and the small files of them that a run's folder keeps.

shown/trained.json    rows that the trained model repeats, with what it says
shown/<id>.json       what the model says to the same prompts after the edit whose result row has that id
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinymem.errors import UserError
from tinymem.runtime.files import read_json, write_json
from tinymem.runtime.json import JsonObject

FOLDER, TRAINED = "shown", "trained"
KEPT = 3  # rows of an artifact
PROMPT, TEXT = 400, 800  # characters that are kept: the end of a prompt, the beginning of a text


@dataclass(frozen=True)
class Said:
    """A model's greedy continuation of a prompt.

    Attributes:
        model: `trained model`, or a method with its options.
        text: as the tokenizer writes it, control characters included.
        differs: spans [start, end) of characters that are not what should follow.
        wrong: number of tokens that differ, or are missing.
        tokens: number of tokens that should follow.
    """

    model: str
    text: str
    differs: tuple[tuple[int, int], ...] = ()
    wrong: int = 0
    tokens: int = 0

    @property
    def verdict(self) -> str:
        """`word for word`, or how many tokens differ; empty where nothing is known that should follow."""
        if not self.tokens:
            return ""
        return f"{self.wrong} of {self.tokens} tokens differ" if self.wrong else "word for word"


@dataclass(frozen=True)
class ShownRow:
    """A prompt, what should follow, and what each model says.

    Attributes:
        artifact: the kind of the planted row; `rows` of a user's own, `prompt` of a text.
        row: number of the row, from 0.
        part: `forget` (given to methods), `holdout` (memorized and withheld), `memorized`, `not memorized`, or empty.
        prompt: text given, from its end where it is long.
        target: text that should follow; empty where none is known: then `differs` is against the first model.
        said: by each model, the unedited one first.
    """

    artifact: str
    row: int
    part: str
    prompt: str
    target: str
    said: tuple[Said, ...] = ()

    @property
    def title(self) -> str:
        """`noise row 12 (forget)`."""
        name = self.artifact if self.artifact == "prompt" else f"{self.artifact} row {self.row}"
        return f"{name} ({self.part})" if self.part else name

    def as_json(self) -> JsonObject:
        """The row as JSON holds it."""
        values: JsonObject = asdict(self)
        return values


def cut(row: ShownRow) -> ShownRow:
    """The row with its texts cut to what a run's folder keeps of them."""
    prompt = row.prompt if len(row.prompt) <= PROMPT else "…" + row.prompt[1 - PROMPT :]
    return replace(row, prompt=prompt, target=_cut_text(row.target), said=tuple(map(_cut_said, row.said)))


def _cut_text(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _cut_said(said: Said) -> Said:
    spans = tuple((start, min(end, TEXT - 1)) for start, end in said.differs if start < TEXT - 1)
    return said if len(said.text) <= TEXT else replace(said, text=_cut_text(said.text), differs=spans)


def write_shown(run: Path, name: str, rows: Sequence[ShownRow]) -> None:
    """Keep rows of one model in a run's folder, under `trained` or the id of a result row.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(run / FOLDER / f"{name}.json", [cut(row).as_json() for row in rows])


def read_shown(run: Path, names: Sequence[tuple[str, str]]) -> list[ShownRow]:
    """The rows that a run's folder keeps, with what the trained model and the models after edits say; empty where it keeps none.

    Args:
        run: its folder.
        names: id and label of each edit that is shown, as far as the folder has it.

    Raises:
        UserError: a damaged file.
    """
    found = _read(run, TRAINED)
    for name, label in names:
        edited = {(row.artifact, row.row): row for row in _read(run, name)}
        found = [_joined(row, edited.get((row.artifact, row.row)), label) for row in found]
    return found


def _joined(row: ShownRow, other: ShownRow | None, label: str) -> ShownRow:
    """A row with what a further model says, if that was asked the same."""
    if other is None or (other.prompt, other.target) != (row.prompt, row.target):
        return row
    return replace(row, said=(*row.said, *(replace(said, model=label) for said in other.said)))


def _read(run: Path, name: str) -> list[ShownRow]:
    path = run / FOLDER / f"{name}.json"
    if not path.is_file():
        return []
    values = read_json(path, "file of generations")
    try:
        if not isinstance(values, list):
            raise TypeError
        return [_row(value) for value in values]
    except (TypeError, KeyError, ValueError):
        raise UserError(f"expected generations in {path}, got something else; delete it: the results do not need it") from None


def _row(value: dict[str, Any]) -> ShownRow:
    said = tuple(Said(**{**s, "differs": tuple((int(a), int(b)) for a, b in s["differs"])}) for s in value["said"])
    row = ShownRow(**{**value, "said": said})
    texts = (row.artifact, row.part, row.prompt, row.target, *(text for s in said for text in (s.model, s.text)))
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for s in said for n in (row.row, s.wrong, s.tokens)):
        raise TypeError
    return row
