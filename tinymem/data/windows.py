"""Rows of one length cut from a corpus, in blocks: arrays or JSON lines of ids, files of text, or a data set of the Hub, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tinymem.data.rows_file import IDS, are_ids
from tinymem.data.text.source import BLOCK_CHARACTERS, KNOWN, Column, TextSource
from tinymem.data.text.tokenize_worker import by_size
from tinymem.data.token_arrays import ARRAYS, RawLayout, read_token_array
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.runtime.files import json_lines, users_json

ARRAY_ROWS = 4096  # of a block of ids
TEXT = "text"
"""The column that is read where none is named."""
NAME_COLUMN = "name it with --text-column"
JOINED = (".txt", ".text", ".raw", ".tokens")
"""Files whose lines go on: a block of them is one document, and not each line."""


@dataclass(frozen=True)
class CorpusChoice:
    """A corpus as chosen on the command line.

    Attributes:
        name: a file, or a data set of the Hub.
        column: of its text, or of ids in JSON lines; None: `text`, and in JSON lines without it `ids`, `input_ids` or `tokens`.
        split: of a data set.
        config: of a data set.
        revision: of a data set.
        layout: of a raw file of ids.
    """

    name: str
    column: str | None = None
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    layout: RawLayout | None = None

    @property
    def path(self) -> Path | None:
        """The file; None for a data set of the Hub."""
        path = Path(self.name)
        if path.is_file():
            if self.config or self.split != "train":
                raise UserError(f"expected --split and --subset with a data set of the Hub, got them with the file {path}; leave them out")
            if self.column and (path.suffix.lower() in ARRAYS or _is_joined(path)):
                raise UserError(f"expected --text-column with a file that has columns, got it with {path}; leave it out")
            return path
        if path.exists() or path.suffix.lower() in (*KNOWN, *ARRAYS):
            raise UserError(f"expected a file of text or ids, or a data set of the Hub, got {self.name}, which is no file")
        return None


@dataclass(frozen=True)
class Block:
    """Some documents or rows of a corpus, one after the other."""

    documents: Sequence[str] | Sequence[Sequence[int]]


def blocks(corpus: CorpusChoice, done: int, documents: int) -> Iterator[Block]:
    """The blocks of a corpus but for the first `done`, which hold so many documents.

    Raises:
        UserError: a corpus that is not there, or not as its kind has to be.
    """
    path = corpus.path
    if path is None:
        yield from map(Block, by_size(_streamed(corpus, documents), BLOCK_CHARACTERS))
    elif path.suffix.lower() in ARRAYS:
        ids = read_token_array(path, corpus.layout).ids
        yield from (Block(ids[start : start + ARRAY_ROWS].tolist()) for start in range(done * ARRAY_ROWS, len(ids), ARRAY_ROWS))
    elif _is_of_ids(path, corpus.column):
        rows = _lines_of_ids(path, corpus.column)
        yield from map(Block, islice(iter(lambda: list(islice(rows, ARRAY_ROWS)), []), done, None))
    else:
        column = Column(corpus.column or TEXT, NAME_COLUMN, instead=() if corpus.column else IDS)
        lines = TextSource(column, files={"train": [path]}).blocks("train", empty=True)
        yield from (Block(["".join(block)] if _is_joined(path) else block) for block in islice(lines, done, None))


def _is_joined(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(JOINED)


def _is_of_ids(path: Path, column: str | None) -> bool:
    """Whether a file is JSON lines of token ids: the first line that has anything has a list."""
    if not path.name.lower().removesuffix(".gz").endswith(".jsonl"):
        return False
    values = (_value_of(line, column, path) for _, line in json_lines(path, "repair the line", users_json))
    return isinstance(next((value for value in values if value is not None), None), list)


def _value_of(line: object, column: str | None, path: Path) -> object:
    """Ids or text of a line: the line itself, or of an object what its column has, by default the first known one that is not empty."""
    if isinstance(line, dict):
        values = [line[name] for name in ((TEXT, *IDS) if column is None else (column,)) if line.get(name) is not None]
        return next((value for value in values if value), values[0] if values else None)
    if column is not None:
        raise UserError(f"expected objects with a column '{column}' in {path}, got {str(line)[:40]}; leave --text-column out")
    return line


def _lines_of_ids(path: Path, column: str | None) -> Iterator[list[int]]:
    for number, line in json_lines(path, "repair the line", users_json):
        ids = _value_of(line, column, path)
        if not are_ids(ids):
            raise UserError(f"expected token ids in every line of {path}, got {str(line)[:40]} in line {number}; repair the line")
        yield ids


def _streamed(corpus: CorpusChoice, skip: int) -> Iterator[str]:
    """Texts of a data set, downloaded as they are read; a null text is an empty one."""
    import datasets

    column = Column(corpus.column or TEXT, NAME_COLUMN)
    try:
        stream: Any = datasets.load_dataset(corpus.name, corpus.config, split=corpus.split, revision=corpus.revision, streaming=True)
        for example in stream.skip(skip):
            if column.name not in example:
                raise column.missing(corpus.name, [*example])
            yield column.text(example[column.name], corpus.name)
    except UserError:
        raise
    except Exception as error:  # the library and the network raise dozens of kinds
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"could not read '{corpus.name}' ({corpus.split}) through datasets: {reason}; run again to go on") from None


def windows_of(block: Block, tokens: ModelTokens, length: int, *, every: bool) -> Iterator[tuple[int, int, list[int]]]:
    """Document in the block, offset and ids of each row of `length` tokens: the first of each document, or all that follow one another."""
    texts = [document for document in block.documents if isinstance(document, str)]
    rows: Sequence[Sequence[int]] = tokens.encode(texts) if texts else [row for row in block.documents if not isinstance(row, str)]
    for number, row in enumerate(rows):
        for start in range(0, len(row) - length + 1, length) if every else range(min(1, max(0, len(row) - length + 1))):
            yield number, start, list(row[start : start + length])
