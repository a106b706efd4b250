"""Planted rows, their clean counterparts and other rows of training from files, for models that TinyMem did not train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymem.data.math.sequences import Ids
from tinymem.data.own_rows import DEFAULT_WINDOW, rows_digest
from tinymem.data.rows import Rows
from tinymem.data.rows_file import read_rows
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError, check_given
from tinymem.localization.layers.sequences import PlantedRows


@dataclass(frozen=True)
class PlantedFiles:
    """Files of rows, and the window of the test of memorization.

    Attributes:
        planted: rows as the model was trained on them.
        original: the clean counterpart of each, in the same order.
        clean: clean rows that it was trained on besides.
        prompt: tokens given; None: 50.
        match: tokens that must follow; None: 50. Rows are cut to both.
        column: that holds ids or text; None: the first that is known.
    """

    planted: Path | None = None
    original: Path | None = None
    clean: Path | None = None
    prompt: int | None = None
    match: int | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        found = {"planted": self.planted, "original": self.original, "clean": self.clean}
        missing = [f"--{option}" for option, path in found.items() if path is None]
        if 0 < len(missing) < len(found):
            raise UserError(f"expected --planted, --original and --clean together, got no {' and no '.join(missing)}; name all")
        check_given(found)
        if missing and (self.prompt or self.match or self.column):
            raise UserError("expected files of rows for --prompt, --match and --column, got none; a checkpoint's corpus has its own window")

    @property
    def given(self) -> bool:
        """Whether there are files; without them the checkpoint's corpus is used."""
        return self.planted is not None


def planted_rows_from(files: PlantedFiles, folder: Path, vocabulary: int, count: int, rng: np.random.Generator) -> tuple[PlantedRows, str]:
    """The rows of files, and the id of their content.

    Args:
        files: all three.
        folder: of the model, whose tokenizer reads text.
        vocabulary: number of token ids that the model knows.
        count: at most so many planted rows, drawn.
        rng: draws them.

    Raises:
        UserError: bad files, ids that the model does not know, rows shorter than prompt and match, or not as many counterparts.
    """
    prompt, match = files.prompt or DEFAULT_WINDOW, files.match or DEFAULT_WINDOW
    assert files.planted and files.original and files.clean
    tokens, places = ModelTokens(folder), (files.planted, files.original, files.clean)
    planted, original, others = (_read(place, tokens, files.column, vocabulary, prompt + match) for place in places)
    if len(planted) != len(original):
        raise UserError(f"expected a counterpart of each of {len(planted)} planted rows in {files.original}, got {len(original)}")
    taken = rng.permutation(len(planted))[:count]
    planted, original = planted[taken], original[taken]
    tested = Rows.of(np.concatenate([original[:, :prompt], planted[:, prompt:]], axis=1), prompt)
    digest = rows_digest(Rows.of(planted), Rows.of(original), Rows.of(others), tested)
    return PlantedRows(planted, original, tested, others, numbers=False), digest


def _read(path: Path, tokens: ModelTokens, column: str | None, vocabulary: int, length: int) -> Ids:
    file = read_rows(path, tokens, column=column)
    for row in file.rows:
        if len(row.ids) < length:
            raise UserError(
                f"expected rows of {length} tokens (prompt and match) in {path}, got {len(row.ids)} in {file.counted} {row.number}; "
                "lower --prompt or --match"
            )
    file.refuse_unknown_ids(vocabulary)
    return np.array([row.ids[:length] for row in file.rows])
