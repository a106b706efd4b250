"""Lines of text from the Hub or from local Parquet, JSON-lines, CSV and text files, streamed in blocks; all but Parquet may be .gz.

One row of Parquet, JSON lines or CSV is one line; text files keep their line ends, as WikiText's rows do, but those of Windows are read as
those of others, so that the same text has the same rows. A null text is no line. Local files are read directly, so that no cache can be
stale: `datasets` has been seen to return old rows after a local Parquet file changed. The Hub goes through `datasets`, whose cache is keyed
by the commit there, so that a second corpus needs no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymem.data.text.tokenize_worker import by_size
from tinymem.errors import UserError
from tinymem.recipe.data import WikiData
from tinymem.runtime import network
from tinymem.runtime.files import csv_rows, decode_line, json_lines, open_bytes, read_errors_named, user_path, users_json

SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
PARQUET, JSON_LINES, CSV, TEXT = (".parquet",), (".jsonl",), (".csv",), (".txt", ".text", ".raw", ".tokens")
KNOWN = PARQUET + JSON_LINES + CSV + TEXT
ABOUT = re.compile(r"(read[-_.]?me|licen[cs]es?|copying|notices?|contributing|change[-_.]?log|citation)\b", re.IGNORECASE)
"""Names of files about a data set, which are no text of it."""
BLOCK_CHARACTERS = 1_000_000  # a quarter of a million tokens: work for a second, which is the most that a killed run loses per process
LINE_BYTES = 1 << 20  # a longer line of a text file is cut before a space
BATCH_ROWS = 200  # few, since a row may be a whole article
Block = list[str]


@dataclass(frozen=True)
class Column:
    """The column of the text, and what to try where there is none of that name."""

    name: str
    remedy: str = "set data.text_column"
    instead: tuple[str, ...] = ()
    """Columns that a line of JSON without text may not have its content in, as a list, since it would count as an empty one."""

    def missing(self, where: str, names: list[str]) -> UserError:
        """The error of a file or data set that has other columns."""
        return UserError(f"expected a column '{self.name}' in {where}, got {', '.join(names)}; {self.remedy}")

    def text(self, value: object, where: str) -> str:
        """The text in a row of a data set; empty where it is null.

        Raises:
            UserError: something else, such as ids, which would be read as a text of digits.
        """
        if value is not None and not isinstance(value, str):
            raise UserError(f"expected text in column '{self.name}' of {where}, got {str(value)[:40]}; {self.remedy}")
        return value or ""


@dataclass(frozen=True)
class TextSource:
    """Source of the lines of each split: local files, or a table of `datasets`."""

    column: Column
    files: dict[str, list[Path]] = field(default_factory=dict)
    aside: list[Path] = field(default_factory=list)
    """Files of a known kind in the folder that are not read: licenses, read-mes, and those of no split."""
    tables: dict[str, Any] = field(default_factory=dict)

    def description(self) -> list[str]:
        """Lines that say which local files are read for each split, and which are left aside."""
        named = [*self.files.items(), *([("left aside", self.aside)] if self.aside else [])]
        return [f"{split}: {', '.join(map(str, paths))}" for split, paths in named]

    @property
    def splits(self) -> list[str]:
        """Names of the existing splits, out of train, validation and test."""
        return [split for split in SPLITS if split in self.files or split in self.tables]

    def blocks(self, split: str, *, empty: bool = False) -> Iterator[Block]:
        """Lines of a split in order, in lists of about `BLOCK_CHARACTERS`.

        Args:
            split: train, validation or test.
            empty: whether empty and null lines of files are among them, so that their places are those in the file.

        Raises:
            UserError: an empty file, bytes that are not UTF-8, JSON or Parquet, no such column.
        """
        return by_size((line for line in self._lines(split) if line or empty), BLOCK_CHARACTERS)

    def _lines(self, split: str) -> Iterator[str]:
        if split in self.tables:
            yield from _table_lines(self.tables[split], self.column)
        for path in self.files.get(split, ()):
            yield from _file_lines(path, self.column)


def open_source(data: WikiData) -> TextSource:
    """Find the files or the data set that a recipe names.

    Raises:
        UserError: nothing there, no text files in the folder, or the Hub cannot be reached.
    """
    if data.is_local:
        files, aside = local_files(data)
        return TextSource(Column(data.text_column), files=files, aside=aside)
    return TextSource(Column(data.text_column), tables=hub_tables(data.source, data.config))


def local_files(data: WikiData) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files per split, and those left aside; a single file, or a folder whose file names do not contain splits, is all `train`.

    Raises:
        UserError: no files there, none of a known type, or none named `train`.
    """
    place = user_path(data.source)
    folder = place / data.config if data.config and (place / data.config).is_dir() else place
    if folder.is_file():
        _check_suffix(folder)
        return {"train": [folder]}, []
    if not folder.is_dir():
        raise UserError(f"expected text at data.source = {data.source}, found nothing there; name a folder, a file or a Hub data set")
    there = sorted(p for p in folder.rglob("*") if p.is_file() and _suffix(p) in KNOWN and not _hidden(p.relative_to(folder)))
    found = [p for p in there if _suffix(p) not in TEXT or not ABOUT.match(p.name)]
    if not found:
        raise UserError(f"expected Parquet, .jsonl, .csv or text files ({', '.join(KNOWN)}) in {folder}, found none; check data.source")
    named = {split: [p for p in found if _split_of(p.relative_to(folder)) == split] for split in SPLITS}
    files = {split: paths for split, paths in named.items() if paths} or {"train": found}
    if "train" not in files:
        raise UserError(f"expected files named `train` in {folder}, found only {', '.join(files)}; name one file to train on it")
    read = {path for paths in files.values() for path in paths}
    return files, [path for path in there if path not in read]


def _suffix(path: Path) -> str:
    """What a file's name ends with, in small letters and without .gz."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return name if suffix in PARQUET and name.endswith(".gz") else suffix


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _split_of(path: Path) -> str | None:
    words = set(re.split(r"[^a-z]+", str(path).lower()))
    return next((split for split, names in SPLITS.items() if words & set(names)), None)


def _check_suffix(path: Path) -> None:
    if _suffix(path) not in KNOWN:
        raise UserError(f"expected a file of {', '.join(KNOWN)}, got {path}; rename or convert it")


def hub_tables(name: str, config: str | None) -> dict[str, Any]:
    """Splits of a data set as memory-mapped tables, downloaded once; its name is any that `datasets` accepts, local folders included.

    Raises:
        UserError: `datasets` is missing, the data set cannot be loaded, or it has no split `train`.
    """
    offline = None if Path(name).exists() else network.why_offline()
    try:
        tables = _load(name, config, offline)
    except ImportError:
        raise UserError("data sets of the Hub need the library datasets, which is not installed; try: pip install datasets") from None
    except Exception as error:  # the library and the network raise dozens of kinds
        reason = f"no such file or folder, and {offline}" if offline else " ".join(str(error).split())[:160]
        raise UserError(f"could not load '{name}' ({config}) through datasets: {reason}; a local folder works offline") from None
    if "train" not in tables:
        raise UserError(f"expected a split `train` in '{name}', got {', '.join(tables)}")
    return {split: tables[split] for split in SPLITS if split in tables}


def _load(name: str, config: str | None, offline: str | None) -> Any:
    """A data set from the Hub or, where that cannot be asked, as it was stored before."""
    if offline and not _stored(name):  # the library takes seconds to say so
        raise FileNotFoundError
    import datasets

    with network.offline() if offline else nullcontext():
        return datasets.load_dataset(name, config)


def _stored(name: str) -> bool:
    """Whether `datasets` has stored any part of a data set."""
    from huggingface_hub import constants

    place = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    return (place / name.replace("/", "___").lower()).exists() or (place / name.replace("/", "___")).exists()


def _table_lines(table: Any, column: Column) -> Iterator[str]:
    if column.name not in table.column_names:
        raise column.missing("the data set", table.column_names)
    for batch in table.select_columns([column.name]).iter(batch_size=BATCH_ROWS):
        yield from (column.text(line, "the data set") for line in batch[column.name])


def _file_lines(path: Path, column: Column) -> Iterator[str]:
    if not path.stat().st_size:
        raise UserError(f"expected text in {path}, got an empty file; remove it or name another")
    suffix = _suffix(path)
    if suffix in PARQUET:
        return _parquet_lines(path, column)
    if suffix in CSV:
        return _csv_lines(path, column)
    return _json_lines(path, column) if suffix in JSON_LINES else _text_lines(path)


def _parquet_lines(path: Path, column: Column) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A buffered stream that is not read ahead: else a row group, and in the end the whole file, is held in memory.
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        if column.name not in file.schema_arrow.names:
            raise column.missing(str(path), file.schema_arrow.names)
        kind = file.schema_arrow.field(column.name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UserError(f"expected text in column '{column.name}' of {path}, got {kind}; {column.remedy}")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column.name]):
            yield from (line or "" for line in batch.column(0).to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"expected a whole Parquet file at {path}, got something else ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"expected UTF-8 in column '{column.name}' of {path}, got other bytes ({error.reason}); convert it") from None


def _json_lines(path: Path, column: Column) -> Iterator[str]:
    for number, value in json_lines(path, "repair the line", users_json):
        text = value.get(column.name, value) if isinstance(value, dict) else value
        lists = [n for n, v in value.items() if isinstance(v, list) and v] if not text and isinstance(value, dict) else []
        other = next((n for n in column.instead if n in lists), None)
        if other is not None:
            got = f"got '{other}' alone; repair the line"
            raise UserError(f"expected '{column.name}' with text in line {number} of {path}, as above it, {got}")
        if text is not None and not isinstance(text, str):
            got = ", ".join(value) if isinstance(value, dict) and column.name not in value else str(text)[:40]
            raise UserError(f"expected '{column.name}' with text in line {number} of {path}, got {got or 'nothing'}; {column.remedy}")
        yield text or ""


def _csv_lines(path: Path, column: Column) -> Iterator[str]:
    for _, row in csv_rows(path):
        if column.name not in row:
            raise column.missing(str(path), [*row])
        yield row[column.name] or ""


def _text_lines(path: Path) -> Iterator[str]:
    with read_errors_named(path), open_bytes(path) as file:
        number, rest = 1, b""
        while piece := file.readline(LINE_BYTES):
            line = rest + piece
            whole = line.endswith(b"\n") or len(piece) < LINE_BYTES
            line = line[:-2] + b"\n" if line.endswith(b"\r\n") else line
            cut = len(line) if whole else line.rfind(b" ")
            rest = line[cut:] if cut > 0 else line
            if cut > 0:
                yield decode_line(path, number, line[:cut])
            number += whole
        if rest:
            yield decode_line(path, number, rest)
