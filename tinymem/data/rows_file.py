"""Token rows from a user's file: .npy, .parquet or .jsonl, as ids or as text."""

from __future__ import annotations

import json
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymem.errors import UserError
from tinymem.runtime.files import json_lines


def read_rows(path: Path, tokenizer_folder: Path) -> Tensor:
    """Token ids [N, T] (int64); rows are cut to the length of the shortest.

    .npy holds an integer array [N, T]. Parquet has a column `ids` or `text`. JSON lines hold a list of ids, {"ids": [...]},
    {"text": "..."} or a string. Text is tokenized with the checkpoint's `tokenizer.json`.

    Raises:
        UserError: no such file, another format, no rows, or something else than ids or text in it.
    """
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise UserError(f"expected rows as {', '.join(readers)}, got {path}")
    if not path.is_file():
        raise UserError(f"expected a file of rows at {path}, found none; check the path")
    rows = [_ids_of(row, path, tokenizer_folder) for row in readers[path.suffix](path)]
    if not rows or min(map(len, rows)) < 2:
        raise UserError(f"expected rows of at least 2 tokens in {path}, got {'an empty row' if rows else 'no rows'}")
    length = min(map(len, rows))
    return torch.tensor([row[:length] for row in rows], dtype=torch.int64)


def _read_npy(path: Path) -> list[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, tokenize.TokenError) as error:
        raise UserError(f"expected a NumPy array in {path}, got something else ({error})") from None
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"expected an integer array [rows, tokens] in {path}, got {array.dtype} {list(array.shape)}")
    rows: list[Any] = array.astype(np.int64).tolist()
    return rows


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"expected a Parquet file at {path}, got something else ({str(error).splitlines()[0]})") from None
    column = next((c for c in ("ids", "text") if c in table.column_names), None)
    if column is None:
        raise UserError(f"expected a column `ids` or `text` in {path}, got {', '.join(table.column_names)}")
    rows: list[Any] = table.column(column).to_pylist()
    return rows


def _read_jsonl(path: Path) -> list[Any]:
    rows = []
    for number, value in json_lines(path, "repair the line", json.loads):
        row = value.get("ids", value.get("text")) if isinstance(value, dict) else value
        if row is None:
            raise UserError(f"expected `ids` or `text` in line {number} of {path}")
        rows.append(row)
    return rows


def _ids_of(row: Any, path: Path, tokenizer_folder: Path) -> list[int]:
    if isinstance(row, str):
        return _tokenize(row, tokenizer_folder)
    if isinstance(row, list) and all(isinstance(i, int) and not isinstance(i, bool) and abs(i) < 2**63 for i in row):
        return row
    raise UserError(f"expected rows of token ids or text in {path}, got {str(row)[:40]}")


def _tokenize(text: str, folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"expected {path} to tokenize text rows, found none; give rows of token ids instead")
    try:
        ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
    except Exception as error:  # the Rust library raises plain Exception
        raise UserError(f"the checkpoint's tokenizer cannot encode '{text[:40]}': {error}") from None
    return ids
