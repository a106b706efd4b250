"""Rows of a user's own: files of rows to forget and to keep, and the window that each row is tested on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from tinymem.data.alike import alike_as_wholes, alike_where_tested
from tinymem.data.rows import Rows
from tinymem.data.rows_file import FileRow, RowsFile, read_rows
from tinymem.data.token_arrays import RawLayout
from tinymem.data.tokenizer_folder import ModelTokens
from tinymem.errors import UserError, check_given
from tinymem.runtime.files import content_id

DEFAULT_WINDOW = 50
PARTED = "rows that are alike stay on one side"
"""Part of the id of rows that repeat, so that results from when they were on both sides are not taken for theirs."""
ForgetRows = Literal["all", "memorized"]


@dataclass(frozen=True)
class RowFiles:
    """Files of rows and how to read them, or the corpus, as chosen on the command line.

    Attributes:
        forget: rows of the test of memorization.
        retain: rows whose perplexity is measured.
        prompt: tokens given; None: the checkpoint's own, or DEFAULT_WINDOW.
        match: tokens that must follow; None as above, and the whole target of a row with a prompt of its own.
        column: that holds ids or text; None: the first that is known.
        bos: whether the model's first token is put before each text.
        strict: whether a row that is too short is an error, instead of left out with a warning.
        corpus: folder of the checkpoint's corpus, or the text that it was made of; None: the one in the run's folder.
        forget_rows: whether a method is given `all` rows to forget but the holdout, or of those only the `memorized` ones.
        raw: layout of raw files of ids (.bin).
    """

    forget: Path | None = None
    retain: Path | None = None
    prompt: int | None = None
    match: int | None = None
    column: str | None = None
    bos: bool = False
    strict: bool = False
    corpus: Path | None = None
    forget_rows: ForgetRows = "all"
    raw: RawLayout | None = None

    def __post_init__(self) -> None:
        check_given({"forget": self.forget, "retain": self.retain, "corpus": self.corpus})  # before a model is loaded

    @property
    def given(self) -> bool:
        """Whether there is a file of rows at all; without one the checkpoint's corpus is used.

        Raises:
            UserError: a corpus besides; or how to read files that are not given.
        """
        there = bool(self.forget or self.retain)
        if self.corpus and there:
            raise UserError("expected --corpus or rows with --forget and --retain, got both; leave one out")
        reading = {"--column": self.column is not None, "--bos": self.bos, "--strict": self.strict}
        if not there and any(reading.values()):
            option = next(name for name, given in reading.items() if given)
            raise UserError(f"expected files of rows, with --forget and --retain, for {option} to read, got none")
        return there


@dataclass(frozen=True)
class OwnRows:
    """The rows that were read, of one length each, with the window that they are tested on."""

    forget: Rows
    retain: Rows
    prompt: int | None
    """Tokens of the prompt; None where it differs from row to row."""
    match: int
    """Most tokens that must follow a prompt."""
    left_out: int
    """Rows of both files that hold nothing, or too little for prompt and match."""
    categories: tuple[str, ...] = ()
    """Category of each row to forget; empty strings where the file has none."""

    @cached_property
    def digest(self) -> str:
        """Content of the rows and their windows, whatever files they came from; of rows that repeat, with how they are parted."""
        found = rows_digest(self.forget, self.retain)
        repeat = any(len({*groups.tolist()}) < len(groups) for groups in (alike_where_tested(self.forget), alike_as_wholes(self.retain)))
        return content_id([found, PARTED], 16) if repeat else found


def rows_digest(*sets: Rows) -> str:
    """Content of some sets of rows, with their windows and lengths."""
    parts = [[getattr(rows, name).tolist() for name in ("ids", "prompt", "end")] for rows in sets]
    return content_id([*parts, [rows.lengths().tolist() for rows in sets]], 16)


@dataclass(frozen=True)
class _Window:
    prompt: int
    match: int
    whole_targets: bool
    """Whether a row with a prompt of its own is tested on all its target."""

    def of(self, row: FileRow, eos: frozenset[int]) -> tuple[int, int] | None:
        """Prompt and end of a row's test; None where the row is too short. EOS ends a row that is shorter than the window."""
        prompt, length = self.prompt if row.prompt is None else row.prompt, len(row.ids)
        if prompt == 0:  # it was padding alone
            return None
        if row.prompt is not None and self.whole_targets:
            return (prompt, length) if length > prompt else None
        ended = row.prompt is not None or (row.ids[-1:] != [] and row.ids[-1] in eos)
        if length < prompt + (1 if ended else self.match):
            return None
        return prompt, min(prompt + self.match, length)


def read_own_rows(files: RowFiles, folder: Path, vocabulary: int, defaults: tuple[int, int] | None = None) -> OwnRows:
    """Read the rows, and say which are left out, repeated or in both files.

    Args:
        files: of which one may be missing.
        folder: of the model, with its tokenizer.
        vocabulary: number of token ids that the model knows.
        defaults: prompt and match of the checkpoint's recipe.

    Raises:
        UserError: bad files, ids that the model does not know, or no row that is long enough.
    """
    prompt, match = defaults or (DEFAULT_WINDOW, DEFAULT_WINDOW)
    window = _Window(files.prompt or prompt, files.match or match, files.match is None)
    tokens = ModelTokens(folder)
    forget, windows, short = _tested(files, tokens, window, vocabulary)
    retain, too_short = _kept(files, tokens, vocabulary)
    tokens_in_all = max((len(row.ids) for row in (*forget, *retain)), default=1)
    prompts, ends = (torch.tensor([w[i] for w in windows], dtype=torch.int64) for i in range(2))
    forget_rows = Rows.ragged([row.ids for row in forget], prompts, ends, tokens_in_all)
    own = OwnRows(
        forget_rows,
        _retain_rows(retain, window, tokens_in_all),
        int(prompts[0]) if len({*prompts.tolist()}) == 1 else None if len(prompts) else window.prompt,
        int((ends - prompts).max()) if len(prompts) else window.match,
        short + too_short,
        tuple(row.category for row in forget),
    )
    say_what_repeats(own.forget, own.retain)
    return own


def _tested(files: RowFiles, tokens: ModelTokens, window: _Window, vocabulary: int) -> tuple[list[FileRow], list[tuple[int, int]], int]:
    if files.forget is None:
        return [], [], 0
    file = _read(files, files.forget, tokens, vocabulary)
    found = [(row, window.of(row, tokens.eos)) for row in file.rows]
    short = [row.number for row, place in found if place is None]
    if len(short) == len(found):
        longest = max((len(row.ids) for row in file.rows), default=0)
        raise UserError(
            f"expected rows of {window.prompt + window.match} tokens (prompt {window.prompt} and match {window.match}) in {file.path}, "
            f"got {longest} at most; lower --prompt or --match"
        )
    left_out = _leave_out(files, file, short, f"prompt {window.prompt} and match {window.match}")
    kept = [(row, place) for row, place in found if place is not None]
    return [row for row, _ in kept], [place for _, place in kept], left_out


def _kept(files: RowFiles, tokens: ModelTokens, vocabulary: int) -> tuple[list[FileRow], int]:
    if files.retain is None:
        return [], 0
    file = _read(files, files.retain, tokens, vocabulary)
    kept = [row for row in file.rows if len(row.ids) >= 2]
    if not kept:
        raise UserError(f"expected rows of at least 2 tokens in {file.path}, got none; use longer rows")
    return kept, _leave_out(files, file, [row.number for row in file.rows if len(row.ids) < 2], "a prediction")


def _read(files: RowFiles, path: Path, tokens: ModelTokens, vocabulary: int) -> RowsFile:
    file = read_rows(path, tokens, column=files.column, bos=files.bos, layout=files.raw)
    file.refuse_unknown_ids(vocabulary)
    if not files.bos and any(row.is_text for row in file.rows) and tokens.opening:
        _say_what_texts_lack(file, tokens)
    return file


def _say_what_texts_lack(file: RowsFile, tokens: ModelTokens) -> None:
    lacking = sum(row.is_text and row.ids[:1] != tokens.first() for row in file.rows)
    if lacking:
        warnings.warn(
            f"{lacking} of {len(file.rows)} rows of {file.path} are read without the '{tokens.opening}' that this tokenizer puts before "
            "a text; --bos (of a sweep's recipe rows.bos) puts it there",
            stacklevel=2,
        )


def _leave_out(files: RowFiles, file: RowsFile, short: list[int], needed: str) -> int:
    """Say which rows are not used; returns how many."""
    left_out = sorted([*short, *file.empty])
    if not left_out:
        return 0
    reasons = [f"{len(short)} too short for {needed}"] * bool(short) + [f"{len(file.empty)} without content"] * bool(file.empty)
    said = f"{' and '.join(reasons)}: {file.places(left_out)} of {file.path}"
    if files.strict:
        raise UserError(f"expected rows that can all be used (--strict), got {said}")
    warnings.warn(f"rows are left out, {said}", stacklevel=2)
    return len(left_out)


def _retain_rows(rows: Sequence[FileRow], window: _Window, tokens: int) -> Rows:
    """Rows to keep, with the window of the test as far as they reach (methods may compare activations there)."""
    lengths = torch.tensor([len(row.ids) for row in rows], dtype=torch.int64)
    prompt = torch.minimum(torch.full_like(lengths, window.prompt), lengths - 1)
    return Rows.ragged([row.ids for row in rows], prompt, torch.minimum(prompt + window.match, lengths), tokens)


def say_what_repeats(forget: Rows, retain: Rows) -> None:
    """Warn of rows to forget that are there more than once, and of those that rows to keep begin with."""
    tested = [tuple(ids[:end]) for ids, end in zip(forget.ids.tolist(), forget.end.tolist(), strict=True)]
    repeated = len(tested) - len({*tested})
    if repeated:
        warnings.warn(f"{repeated} of {len(tested)} rows to forget repeat another, and count again", stacklevel=2)
    kept = [ids[:length] for ids, length in zip(retain.ids.tolist(), retain.lengths().tolist(), strict=True)]
    overlap = len(_beginnings(tested, kept))
    if overlap:
        warnings.warn(
            f"{overlap} of {len(tested)} rows to forget are among the rows to keep too, which works against forgetting them", stacklevel=2
        )


def _beginnings(tested: Iterable[tuple[int, ...]], kept: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """Those of the rows that another row begins with."""
    found = list(tested)
    known = {length: {tuple(ids[:length]) for ids in kept if len(ids) >= length} for length in {len(row) for row in found}}
    return [row for row in found if row in known[len(row)]]
