"""Token rows from a user's file, as ids or as text, each to its own end.

.npy, .pt and .bin hold an integer array [N, T] (`token_arrays`). Parquet, JSON lines and CSV hold a row each, with a column of ids (`ids`,
`input_ids`, `tokens`), of text (`text`, `paragraph`), or `prompt` and `target`, which fix where the test of memorization begins and ends;
a text in `all` with a `prompt_len` has its own prompt too. A line of JSON may also be a list of ids or a string. JSON lines and CSV may be
compressed (.gz). A column `category`, `article` or `copies` groups the rows where results are shown by group. Text is tokenized as a
training text is: nothing is cut, padded or added.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from tinymem.data.padded import GivenRow, without_padding
from tinymem.data.token_arrays import ARRAYS, RawLayout, read_token_array
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError
from tinymem.runtime.files import csv_rows, json_lines, users_json
from tinymem.runtime.words import counted

IDS, TEXTS, PAIR, MASK = ("ids", "input_ids", "tokens"), ("text", "paragraph"), ("prompt", "target"), "attention_mask"
WHOLE, PROMPT_TOKENS = "all", "prompt_len"
"""Columns of MemPi's strings: a text, and how many of its tokens are the prompt."""
CATEGORIES = ("category", "article", "copies")
COLUMNS = (*IDS, *TEXTS, *PAIR, WHOLE)
COLUMNS_TEXT = "`ids`, `input_ids`, `tokens`, `text`, `paragraph`, or `prompt` and `target`"
LIST_OF_NUMBERS = re.compile(r"\s*\[\s*\d+(?:[\s,]+\d+)*\s*\]\s*")
FORMATS = (*ARRAYS, ".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz")


@dataclass(frozen=True)
class FileRow:
    """A row of a file, without its padding."""

    ids: list[int]
    prompt: int | None
    """Tokens of a prompt of the row's own, 0 if it was padding alone; None where the test's prompt length holds."""
    number: int
    """Its line in the file, or its row, counted from 1."""
    category: str = ""
    """What its column `category`, `article` or `copies` holds, of several values the first; empty without such a column."""
    is_text: bool = False
    """Whether it begins with a text, and not with ids."""


@dataclass(frozen=True)
class RowsFile:
    """The rows of a file, with the numbers of those that hold nothing."""

    path: Path
    counted: str
    """What numbers count: `line` or `row`."""
    rows: list[FileRow] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)

    def refuse_unknown_ids(self, vocabulary: int) -> None:
        """Raise UserError for a row with a token id that a model of so many does not know."""
        for row in self.rows:
            refuse_unknown_ids(row.ids, vocabulary, f"{self.counted} {row.number} of {self.path}")

    def places(self, numbers: list[int]) -> str:
        """Where some rows are, such as `lines 3, 9, 12, ...`."""
        shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
        return f"{self.counted}{'s' if len(numbers) > 1 else ''} {shown}"


def read_rows(
    path: Path,
    tokens: ModelTokens,
    *,
    column: str | None = None,
    bos: bool = False,
    layout: RawLayout | None = None,
    most: int | None = None,
) -> RowsFile:
    """Read a file of rows.

    Args:
        path: of one of the formats.
        tokens: of the model, whose padding is left out, left and right, and whose tokenizer reads text.
        column: that holds the ids or the text; default: the first that is known and not null.
        bos: whether the model's first token is put before each text.
        layout: of a raw file (.bin).
        most: rows that are read, from the first on; None: all.

    Raises:
        UserError: no such file, another format, or something else than ids or text in it; it names the line or row.
    """
    suffix = _format_of(path)
    found = RowsFile(path, "line" if suffix.startswith((".jsonl", ".csv")) else "row")
    values = list(islice(values_of_file(path, suffix, layout), most))
    raw = [_Raw.of(value, number, found, column) for number, value in values]
    found.empty.extend(r.number for r in raw if r.value is None)
    _say_what_looks_like_ids(raw, found)
    encoded = _encoded([r for r in raw if r.value is not None], found, tokens, bos)
    categories = {number: _category(value) for number, value in values}
    stripped = without_padding([row for row, _ in encoded], tokens)
    for (ids, prompt), (_, r) in zip(stripped, encoded, strict=True):
        found.rows.append(FileRow(ids, prompt, r.number, categories[r.number], not _ids_given(r)[0]))
    if not raw:
        raise UserError(f"expected rows in {path}, got no rows")
    return found


def refuse_unknown_ids(ids: Sequence[int], vocabulary: int, where: str) -> None:
    """Raise UserError for a token id that a model of so many does not know; `where` says which row it is in."""
    if len(ids) and not 0 <= min(ids) <= max(ids) < vocabulary:
        bad = next(i for i in ids if not 0 <= i < vocabulary)
        raise UserError(f"expected token ids from 0 to {vocabulary - 1} in {where}, got {bad}; is it another tokenizer's?")


def are_ids(value: object) -> TypeGuard[list[int]]:
    """Whether a value of a file is a list of whole numbers, as token ids are."""
    return isinstance(value, list) and all(isinstance(i, int) and not isinstance(i, bool) and abs(i) < 2**63 for i in value)


def count_rows(path: Path, layout: RawLayout | None = None) -> int:
    """Number of rows that a file has, before they are read; raises as `read_rows`."""
    suffix = _format_of(path)
    return len(read_token_array(path, layout).ids) if suffix in ARRAYS else sum(1 for _ in values_of_file(path, suffix, layout))


# ---- formats ------------------------------------------------------------------------------------------------------------------------


def _format_of(path: Path) -> str:
    suffix = next((s for s in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    if suffix is None and (path.is_file() or path.suffix):
        raise UserError(f"expected rows as {', '.join(FORMATS)}, got {path}")
    if suffix is None or not path.is_file():
        raise UserError(f"expected a file of rows at {path}, found none; check the path")
    return suffix


def values_of_file(path: Path, suffix: str, layout: RawLayout | None = None) -> Iterator[tuple[int, Any]]:
    """The lines or rows of a file as their format holds them, each with its number from 1; `suffix` is the end of its name."""
    if suffix in ARRAYS:
        return enumerate(_array_rows(path, layout), start=1)
    if suffix == ".parquet":
        return enumerate(_read_parquet(path), start=1)
    return json_lines(path, "repair the line", users_json) if suffix.startswith(".jsonl") else csv_rows(path)


def _array_rows(path: Path, layout: RawLayout | None) -> list[Any]:
    """Rows of an array; those that have prompts of their own as prompt and target."""
    array = read_token_array(path, layout)
    rows: list[Any] = array.ids.tolist()
    return rows if array.prompt is None else [dict(zip(PAIR, (row[: array.prompt], row[array.prompt :]), strict=True)) for row in rows]


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Any] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"expected a Parquet file at {path}, got something else ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"expected UTF-8 in {path}, got the byte 0x{error.object[error.start]:02x}; convert the text") from None
    return rows


# ---- rows ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Raw:
    """What a line or row holds: ids or text, a pair of them, or nothing."""

    value: Any
    number: int
    mask: list[int] | None = None
    prompt: tuple[str, int] | None = None
    """Text and tokens of the prompt that a whole text begins with."""

    @staticmethod
    def of(value: Any, number: int, file: RowsFile, column: str | None) -> _Raw:
        if not isinstance(value, dict):
            return _Raw(value or None, number)
        where = f"{file.counted} {number} of {file.path}"
        if column is not None:
            if column not in value:
                raise UserError(f"expected a column '{column}' in {where}, got {', '.join(value)}")
            return _Raw(_value(value, column, where), number, _value(value, MASK, where))
        if not any(name in value for name in COLUMNS):
            names = ", ".join(map(str, value)) or "nothing"
            raise UserError(f"expected {COLUMNS_TEXT} in {where}, got {names}; name the column with --column")
        if all(value.get(name) for name in PAIR):
            return _Raw(tuple(_value(value, name, where) for name in PAIR), number, _value(value, MASK, where))
        if value.get(WHOLE) and value.get(PROMPT_TOKENS):
            return _Raw(_value(value, WHOLE, where), number, prompt=(str(value.get(PAIR[0], "")), _prompt_tokens(value, number, file)))
        found = next((_value(value, name, where) for name in (*IDS, *TEXTS, WHOLE) if value.get(name)), None)
        return _Raw(found, number, _value(value, MASK, where))


def _category(value: Any) -> str:
    """`copies 8` for a number of copies, which says nothing by itself."""
    name = next((name for name in CATEGORIES if isinstance(value, dict) and value.get(name) is not None), None)
    found = value[name] if name else ""
    found = (found[0] if found else "") if isinstance(found, list | tuple) else found
    return f"copies {found}" if name == "copies" else str(found)


def _value(row: dict[str, Any], name: str, where: str) -> Any:
    """A column of a row, None where it is empty; bytes as text, and ids that CSV writes as `[1, 2]` or `1 2` as a list.

    Raises:
        UserError: a column of ids has something else, which is never read as a text.
    """
    value = row.get(name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, str) and name in (*IDS, MASK):
        words = value.strip("[] ").replace(",", " ").split()
        if wrong := [word for word in words if not word.isdecimal()]:
            got = f"got '{wrong[0][:40]}'; name a column of text with --column"
            raise UserError(f"expected token ids such as [1, 2] in the column '{name}' of {where}, {got}")
        return [int(word) for word in words] or None
    return value or None


def _encoded(raw: list[_Raw], file: RowsFile, tokens: ModelTokens, bos: bool) -> list[tuple[GivenRow, _Raw]]:
    """Token ids of each row, of prompt and target where it has its own, and its source."""
    for r in raw:
        for value in r.value if isinstance(r.value, tuple) else (r.value,):
            _check(value, r, file)
    texts = list(dict.fromkeys(text for r in raw for text in (*_texts(r.value), *(r.prompt or ("",))[:1]) if text))
    known = dict(zip(texts, tokens.encode(texts), strict=True)) if texts else {}
    first = tokens.first() if bos and texts else []
    found: list[tuple[GivenRow, _Raw]] = []
    for r in raw:
        if isinstance(r.value, tuple):
            parts = _pair(r.value, known, first)
        elif r.prompt is not None:
            parts = _parted([*first, *known[r.value]], len(first) + _agreed_prompt(r, known, file, tokens))
        else:
            parts = ([*first, *known[r.value]] if isinstance(r.value, str) else r.value,)
        found.append((GivenRow(parts, _ids_given(r), _mask(r, file)), r))
    return found


def _prompt_tokens(row: dict[str, Any], number: int, file: RowsFile) -> int:
    text = str(row[PROMPT_TOKENS])
    if not text.isdecimal() or not isinstance(row[WHOLE], str):
        raise UserError(f"expected a text `all` and a number `prompt_len` in {file.counted} {number} of {file.path}, got '{text[:40]}'")
    return int(text)


def _agreed_prompt(row: _Raw, known: dict[str, list[int]], file: RowsFile, tokens: ModelTokens) -> int:
    """Tokens of a prompt, which the model's tokenizer must cut as the set's did."""
    assert row.prompt is not None
    text, count = row.prompt
    ids = known[text] if text else known[row.value][:count]
    if len(ids) != count or known[row.value][:count] != ids:
        raise UserError(
            f"expected the prompt in {file.counted} {row.number} of {file.path} to be its first {count} tokens, as prompt_len says, "
            f"got {len(ids)} by the tokenizer in {tokens.folder}; the set is of another model's tokenizer"
        )
    return count


def _say_what_looks_like_ids(raw: list[_Raw], file: RowsFile) -> None:
    numbers = [r.number for r in raw if any(LIST_OF_NUMBERS.fullmatch(text) for text in _texts(r.value))]
    if numbers:
        which = f"{counted(len(numbers), 'row')} of {file.path} ({file.places(numbers)})"
        warnings.warn(
            f"read as text, and like lists of token ids: {which}; a column of ids is called {', '.join(IDS[:-1])} or {IDS[-1]}",
            stacklevel=3,
        )


def _texts(value: Any) -> list[str]:
    if isinstance(value, tuple):
        texts = [v for v in value if isinstance(v, str)]
        return [*texts, "".join(texts)] if len(texts) == len(value) else texts
    return [value] if isinstance(value, str) else []


def _pair(value: tuple[Any, ...], known: dict[str, list[int]], first: list[int]) -> tuple[list[int], ...]:
    """Token ids of prompt and target, tokenized as one text where its tokens end with the prompt."""
    prompt, target = (known[v] if isinstance(v, str) else v for v in value)
    whole = known.get("".join(value)) if all(isinstance(v, str) for v in value) else None
    ids = whole if whole is not None and whole[: len(prompt)] == prompt else [*prompt, *target]
    begun = first if isinstance(value[0], str) else []
    return _parted([*begun, *ids], len(begun) + len(prompt))


def _parted(ids: list[int], prompt: int) -> tuple[list[int], ...]:
    return ids[:prompt], ids[prompt:]


def _check(value: Any, row: _Raw, file: RowsFile) -> None:
    if isinstance(value, str):
        try:
            value.encode()
            return
        except UnicodeEncodeError:
            raise UserError(f"expected UTF-8 in {file.counted} {row.number} of {file.path}, got other bytes; convert the text") from None
    if not are_ids(value):
        raise UserError(f"expected token ids or text in {file.counted} {row.number} of {file.path}, got {str(value)[:40]}")


def _ids_given(row: _Raw) -> tuple[bool, ...]:
    """Whether ids were given, for each part of a row."""
    if row.prompt is not None:
        return False, False
    return tuple(not isinstance(value, str) for value in (row.value if isinstance(row.value, tuple) else (row.value,)))


def _mask(row: _Raw, file: RowsFile) -> list[int] | None:
    """The attention mask of a row of ids, over all of them; of a pair it may be the prompt's alone."""
    if row.mask is None or not all(_ids_given(row)):
        return None
    prompt, target = row.value if isinstance(row.value, tuple) else (row.value, [])
    known = isinstance(row.mask, list) and len(row.mask) in (len(prompt), len(prompt) + len(target)) and {*row.mask} <= {0, 1}
    if not known:
        raise UserError(f"expected an {MASK} of 0 and 1 for each id in {file.counted} {row.number} of {file.path}, got another")
    return row.mask if len(row.mask) > len(prompt) else [*row.mask, *[1] * len(target)]
